"Two real processes train one learner: whose batches are whose, what agrees, who writes, what a resumed run gives, and how an error ends"
import json, os, subprocess, sys
from collections import Counter
from itertools import product
from pathlib import Path
import numpy as np, pandas as pd, pytest, torch
from hypothesis import given, strategies as st
from vehicle_reid.data import PKSampler, ReIDDataLoaders
from vehicle_reid.losses import ReIDLoss
from vehicle_reid.parts import uniform_parts
from vehicle_reid.pmnet import PMNet
from vehicle_reid.synth import synth_veri

def launch(*args, launcher=('accelerate.commands.launch','--multi_gpu','--num_processes','2','--num_machines','1','--mixed_precision','no','--dynamo_backend','no'), cwd, **env):
    "Both processes' output together; a hang ends after 150 s"
    cmd = [sys.executable, '-m', *launcher, *map(str, args)]
    port = 20000+os.getpid()%20000
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'MASTER_PORT': str(port), 'ACCELERATE_USE_CPU': 'true', 'CUDA_VISIBLE_DEVICES': '', 'PYTHONWARNINGS': 'ignore', **env}
    return subprocess.run(cmd, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=150)

HEAD = '''
import sys; sys.path.insert(0, sys.argv[1])
import hashlib, json, os, torch
from fastai.callback.core import Callback
from fastai.torch_core import rank_distrib, set_seed
from vehicle_reid.data import ReIDDataLoaders
from vehicle_reid.learner import ReIDLearner, reid_learner
rank = rank_distrib()
dls = ReIDDataLoaders.from_veri('data', size=32, p=2, k=3, val_bs=7, num_workers=0)
def learner(**kw):
    set_seed(3+rank) # the processes begin with other weights
    return reid_learner(dls, 'resnet10t', pretrained=False, feat_dim=16, path='.', **kw)
'''

MAIN = HEAD + '''
from vehicle_reid.metrics import evaluate_features
from vehicle_reid.processes import on_first
out = dict(steps=[], written=[], panet_images=0)

def audit(event, args):
    "Files that this process opens to write, or moves"
    if event=='open' and (set(str(args[1] or '')) & set('wax+') or (args[2] or 0) & (os.O_WRONLY|os.O_RDWR)): path = args[0]
    elif event=='os.rename': path = args[1]
    else: return
    if isinstance(path, (str,os.PathLike)) and any(o in str(path) for o in ('whole','masks')): out['written'].append(os.path.relpath(path))
sys.addaudithook(audit)

class Watch(Callback):
    order = 20
    def before_train(self): self.kept = [str(p) for p in self.part_masks.kept.places]
    def before_batch(self):
        if self.training: self.shift = self.dls.train.dl.after_batch.fs[-2].shift[0].flatten().tolist()
    def after_backward(self):
        if not self.training: return
        d,net = self.learn,self.model.module
        terms = {h: d.loss_func.terms[f'id_{h}'].item() for h in net.heads}
        own = [.5-lam*terms[h] for h,lam in zip(net.heads, net.weights.tolist())] # of this process's loss alone, eq. 6
        out['steps'].append(dict(epoch=d.epoch, rows=self.dl.rows, y=self.yb[0].tolist(), own=own, id_G=terms['G'], grad=net.log_var.grad.tolist(), shift=self.shift,
            conv=next(net.trunk.parameters()).grad.sum().item()))

def digest(net): return {k: hashlib.sha256(v.contiguous().numpy().tobytes()).hexdigest()[:12] for k,v in net.state_dict().items()}
def error(f):
    try: f()
    except Exception as e: return str(e)

out['alone'] = error(lambda: learner().fit_two_stage(1, 1, folder='never'))
a = learner(); cbs = [c.name for c in a.cbs]
def fit(learn, folder, *cbs, seed=5):
    set_seed(seed+rank)
    with learn.distrib_ctx(): learn.fit_two_stage(1, 2, folder=folder, cache='masks', panet_bs=16, cbs=cbs)
def count(m, i, o): out['panet_images'] += len(i[0])*(not m.training)
hook = a.panet.body.register_forward_hook(count)
fit(a, 'whole', Watch())
hook.remove()
out['cbs'] = sorted(c.name for c in a.cbs)==sorted(cbs), type(a.model).__name__, [type(o).__name__ for o in dls.loaders]
out['first error'] = error(lambda: on_first(lambda: 1/0)), on_first(lambda: rank)
out['pmnet'],out['panet'],out['log_var'] = digest(a.model),digest(a.panet),a.model.log_var.tolist()
out['epoch table'] = a.re_id_metrics.result.series().to_dict(); out['ap'] = a.re_id_metrics.result.ap.tolist()
q,g = dls.query_items,dls.gallery_items
out['ap alone'] = evaluate_features(a.embed(q), a.embed(g), q.vid.values, g.vid.values, q.cam.values, g.cam.values).ap.tolist()
out['teachers'] = a.evaluate(teachers=True)['mAP']
a.save_pretrained('saved')
if rank==0:
    import matplotlib; matplotlib.use('agg')
    a.show_rankings(n=1, k=2); a.show_parts(n=1); a.show_attention(n=1)
    out['saved'] = digest(ReIDLearner.from_pretrained('whole', dls).model)

class Stop(Callback):
    order = 80
    def before_epoch(self):
        if self.epoch==1: raise KeyboardInterrupt
b = learner()
try: fit(b, 'cut', Stop())
except KeyboardInterrupt: out['after'] = type(b.model).__name__, [type(o).__name__ for o in dls.loaders]
c = learner(); fit(c, 'cut', seed=99)
out['cut'] = digest(c.model)

d = learner(uniform=True).to_bf16(); d.remove_cb(d.uncertainty_weighting)
with d.distrib_ctx(): d.fit(1, 1e-3)
out['without HUL'] = digest(d.model), d.model.log_var.tolist()
json.dump(out, open(f'out{rank}.json', 'w'))
'''

ONE_FAILS = HEAD + '''
class Fail(Callback):
    def after_pred(self):
        if rank and self.training: raise ValueError('the second process found a bad batch')
learn = learner(uniform=True)
with learn.distrib_ctx(): learn.fit(1, cbs=Fail())
'''

ROOT = Path(__file__).resolve().parents[1]

@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "34 training images of 5 vehicles; 35 images to validate, which no two processes share evenly"
    folder = tmp_path_factory.mktemp('two')
    synth_veri(folder/'data', n_ids=9, n_test=4, n_cams=3, n_workers=1)
    return folder

@pytest.fixture(scope='module')
def run(folder):
    (folder/'main.py').write_text(MAIN)
    o = launch('main.py', ROOT, cwd=folder)
    assert o.returncode==0, o.stdout[-5000:]
    return o.stdout, *(json.loads((folder/f'out{r}.json').read_text()) for r in range(2))

def same(run, name): assert run[1][name]==run[2][name]; return run[1][name]

# --- batches
def test_each_process_gets_whole_batches_and_no_step_a_vehicle_twice(run, folder):
    _,a,b = run
    dls = ReIDDataLoaders.from_veri(folder/'data', size=32, p=2, k=3, num_workers=0)
    vids = dls.train_items.vid.values
    assert len(a['steps'])==len(b['steps'])==2*4 # ⌈13 chunks / 4 vehicles a step⌉ steps an epoch
    for x,y in zip(a['steps'], b['steps']):
        for o in (x,y):
            assert (vids[o['rows']].reshape(2, 3)==vids[o['rows']].reshape(2, 3)[:,:1]).all()
            assert [dls.vocab.index(v) for v in vids[o['rows']]]==o['y']
        assert len({*x['y'], *y['y']})==4
    for e in range(2): assert {i for o in a['steps']+b['steps'] if o['epoch']==e for i in o['rows']}==set(range(len(vids)))

def test_processes_augment_differently(run): assert all(x['shift']!=y['shift'] for x,y in zip(run[1]['steps'], run[2]['steps']))

# --- one gradient, one model
def test_gradients_are_the_mean_over_processes_that_of_hul_too(run):
    for x,y in zip(run[1]['steps'], run[2]['steps']):
        assert x['grad']==y['grad'] and x['conv']==y['conv'] and x['own']!=y['own']
        np.testing.assert_allclose(x['grad'], np.mean([x['own'], y['own']], 0), atol=1e-5)

def test_losses_in_the_table_are_the_mean_over_processes(run, folder):
    log = pd.read_csv(folder/'whole'/'pmnet.csv')
    for e in range(2): assert log.id_G[e]==pytest.approx(np.mean([o['id_G'] for o in run[1]['steps']+run[2]['steps'] if o['epoch']==e]), abs=1e-4)

@pytest.mark.parametrize('attention', ['mam','se','residual','none'])
def test_no_option_leaves_a_parameter_without_gradient(attention):
    "So DDP needs no `find_unused_parameters`; `log_var` gets its from HUL"
    x,ids = torch.randn(4, 3, 32, 32),torch.tensor([0,0,1,1])
    parts = uniform_parts(torch.ones(4, 1, 32, 32), 2)
    for share,students,teachers,global_head in product((True,False), repeat=4):
        if not (students or teachers or global_head): continue
        net = PMNet(2, 'resnet10t', 2, 16, attention, share, students, teachers, global_head, pretrained=False).train()
        ReIDLoss()(net(x, parts if teachers else None), ids).backward()
        assert [n for n,p in net.named_parameters() if p.requires_grad and p.grad is None]==['log_var']

def test_models_agree_to_the_last_bit_buffers_too(run):
    assert any('running_mean' in k for k in same(run, 'pmnet')) and same(run, 'panet')
    assert all(o!=0 for o in same(run, 'log_var'))

def test_metrics_are_those_of_one_process(run):
    same(run, 'epoch table')
    assert len(same(run, 'ap'))==12
    for o in run[1:]: np.testing.assert_allclose(o['ap'], o['ap alone'], atol=1e-6)
    assert 0<=same(run, 'teachers')<=1

# --- files
def test_every_file_is_written_by_one_process(run, folder):
    a,b = (Counter(p.removesuffix('.part') for p in o['written']) for o in run[1:])
    a,b = ({p for p in o if '.ckpt' in p or '.part' not in p} for o in (a,b))
    parts = {p for p in b if 'parts' in Path(p).parts}
    assert b==parts and parts and any('parts' in Path(p).parts for p in a-b) and not a&b # the second process writes its share of the kept parts, nothing else
    assert {'whole/run.json','whole/reid.json','whole/panet.csv','whole/pmnet.csv'} <= a and any(p.startswith('masks') for p in a)
    assert sorted(p.name for p in (folder/'whole').iterdir())==['panet','panet.csv','pmnet','pmnet.csv','reid.json','run.json']
    assert run[1]['saved']==run[1]['pmnet'] and (folder/'saved'/'reid.json').exists()

def test_boxes_are_found_once_for_each_image(run): assert run[1]['panet_images']+run[2]['panet_images']==34 and run[2]['panet_images']>0

def test_only_the_first_process_prints(run): assert run[0].count('train_loss')==1+1+1+1+1+1, run[0]

# --- coming out, going on
def test_the_learner_comes_out_as_it_went_in(run):
    for o in run[1:]: assert o['cbs']==[True, 'PMNet', ['PKDataLoader','TfmdDL']] and o['after']==['PMNet', ['PKDataLoader','TfmdDL']]

def test_resumed_equals_unbroken(run): assert same(run, 'cut')==run[1]['pmnet']

def test_a_network_without_hul_trains_too(run):
    same(run, 'without HUL')
    assert run[1]['without HUL'][1]==[0,0,0]

# --- errors
def test_outside_the_context_training_is_refused(run, folder):
    assert 'learn.distrib_ctx()' in same(run, 'alone') and not (folder/'never').exists()

def test_the_first_ones_error_is_everyones(run):
    assert run[1]['first error']==['division by zero', 0]
    assert run[2]['first error']==['The first process ended with ZeroDivisionError: division by zero', 0]

def test_an_error_in_one_process_ends_both(folder):
    (folder/'fails.py').write_text(ONE_FAILS)
    o = launch('--nproc_per_node', 2, 'fails.py', ROOT, launcher=('torch.distributed.run',), cwd=folder)
    assert o.returncode!=0 and 'the second process found a bad batch' in o.stdout

# --- the command line
def test_the_command_trains_in_two_processes(folder):
    o = launch('-m', 'vehicle_reid', 'train', '--data', 'data', '--out', 'cli', '--arch', 'resnet10t', '--weights', 'none', '--size', 32, '--panet-epochs', 1,
        '--pmnet-epochs', 1, '--p', 2, '--k', 3, cwd=folder, XDG_CACHE_HOME=str(folder/'cache'), PYTHONPATH=str(ROOT))
    assert o.returncode==0, o.stdout[-3000:]
    assert o.stdout.count('The learner is in')==1 and o.stdout.count('PMNet only')==1 and (folder/'cli'/'reid.json').exists()

# --- the sampler by itself
@given(st.lists(st.integers(1, 9), min_size=2, max_size=12), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(0, 99))
def test_steps_of_several_processes(ns, p, k, processes, seed):
    p = min(p, len(ns))
    ids = np.repeat(np.arange(len(ns)), ns)
    s = PKSampler(ids, p, k, seed, processes)
    rows = np.array(list(s))
    assert len(rows)==len(s) and set(rows)==set(range(len(ids)))
    steps = ids[rows].reshape(-1, processes, p, k)
    assert (steps==steps[...,:1]).all()
    for step in steps[...,0]:
        assert all(len(set(b))==p for b in step.tolist())
        if p*processes<=len(ns): assert len(set(step.flatten().tolist()))==p*processes
    chunks = [-(-n//k) for n in ns]
    if p*processes<=len(ns): assert len(steps)==max(-(-sum(chunks)//(p*processes)), max(chunks)) # the fewest steps that show every image
