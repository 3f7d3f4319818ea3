"Tables I to VII: every row builds what it says and takes steps; runs × seeds can be killed and go on; numbers reach the page unchanged"
import json, os, shutil, signal, subprocess, sys, time
from pathlib import Path
from itertools import islice
import numpy as np, pandas as pd, pytest, torch
from fastai.callback.core import Callback, CancelFitException
from fastai.torch_core import set_seed
from fastai.vision.core import TensorImage
from torch import nn
from vehicle_reid.all import (Baseline, ColorPatchOcclusion, FixedWeighting, MultiScaleAttention, ReIDLearner, ResidualAttention, SqueezeExcitation, WarmupSteps,
    baseline_learner, baseline_steps, read_veri, reid_learner, synth_veri)
from vehicle_reid.cli import main
from test_oracle_invariants import silent
from vehicle_reid.tables import _gpu_env, _learner, _loaders, _panet, _ready, _run_jobs, _ways, read_runs, run_row, run_tables, table_lines, table_of, table_rows, tables_markdown

SMALL = dict(arch='resnet10t', weights=False, size=64, panet_epochs=1, pmnet_epochs=1, p=2, k=4, feat_dim=32)

@pytest.fixture(scope='module')
def path(tmp_path_factory): return synth_veri(tmp_path_factory.mktemp('data')/'synth', n_ids=16, n_test=3, n_cams=4, n_workers=1)

@pytest.fixture(scope='module')
def items(path): return read_veri(path)

class TwoSteps(Callback):
    def after_batch(self):
        if self.training and self.train_iter==2: raise CancelFitException

def build(name, items):
    set_seed(0)
    row = table_rows[name]
    learn = _learner(row, _loaders(row, items, 64, 2, 4), 'resnet10t', False, feat_dim=32)
    if learn.panet is not None: learn.panet.neck.bn.num_batches_tracked += 1 # as if trained: these are tests of stage 2
    return learn

# what each row of SPEC 5 means, said independently of `table_rows`: heads, attention, stripes, sharing, part transfer, weights of the ID losses
MEANS = dict(
    exp1=('G', None, False, None, False, None), exp2=('GT', nn.Identity, False, None, False, None), exp3=('GST', nn.Identity, False, True, True, None),
    exp4=('GST', MultiScaleAttention, True, True, True, None), exp5=('ST', MultiScaleAttention, False, True, True, None), exp6=('GT', MultiScaleAttention, False, None, False, None),
    full=('GST', MultiScaleAttention, False, True, True, None), full_patches=('GST', MultiScaleAttention, False, True, True, None),
    se=('GST', SqueezeExcitation, False, True, True, None), residual=('GST', ResidualAttention, False, True, True, None),
    fresh=('GST', MultiScaleAttention, False, True, True, None), half=('GST', MultiScaleAttention, False, True, True, None), detach=('GST', MultiScaleAttention, False, True, True, None),
    no_share=('GST', MultiScaleAttention, False, False, True, None), no_transfer=('GST', MultiScaleAttention, False, True, False, None),
    no_share_no_transfer=('GST', MultiScaleAttention, False, False, False, None), fixed_111=('GST', MultiScaleAttention, False, True, True, (1,1,1)),
    fixed_211=('GST', MultiScaleAttention, False, True, True, (2,1,1)), fixed_411=('GST', MultiScaleAttention, False, True, True, (4,1,1)))
BASELINES = ('baseline','baseline_same','baseline_patches')

def test_no_row_is_forgotten():
    assert set(table_rows)=={*MEANS, *BASELINES, 'untrained'}=={o.run for o in table_lines}
    assert [o.table for o in table_lines].count('III')==7 and [o.table for o in table_lines].count('V')==4

@pytest.mark.parametrize('name', MEANS)
def test_row_is_what_it_says_and_takes_two_steps(name, items):
    learn = build(name, items)
    net,(heads,attention,stripes,share,transfer,weights) = learn.model,MEANS[name]
    assert ''.join(net.heads)==heads and hasattr(learn, 'part_transfer')==transfer
    assert hasattr(learn, 'part_masks')==('T' in heads) and (learn.panet is None)==(stripes or 'T' not in heads)
    assert [type(s.look[0]) for s in getattr(net, 'streams', [])]==[attention]*3*(attention is not None)
    if 'T' in heads: assert learn.part_masks.fresh==(name=='fresh') and (learn.part_masks.threshold=='half')==(name=='half')
    if transfer: assert learn.part_transfer.detach==(name=='detach')
    if share is not None: assert {hasattr(s, 'look_teacher') for s in net.streams}=={not share}
    if weights: assert learn.fixed_weighting.weights==weights and not hasattr(learn, 'uncertainty_weighting')
    assert any(isinstance(o, ColorPatchOcclusion) for o in learn.dls.train.after_batch.fs)==name.endswith('_patches')
    before = {n: p.detach().clone() for n,p in net.named_parameters()}
    with learn.no_bar(), learn.no_logging(): learn.fit(1, cbs=TwoSteps())
    still = [n for n,p in net.named_parameters() if torch.equal(p, before[n]) and p.requires_grad]
    assert not still and np.isfinite(float(learn.recorder.losses[-1])), still
    if weights: torch.testing.assert_close(net.weights, torch.tensor(weights).float())
    terms = {f'{t}_{j}' for t in ('id','tri') for j in heads} | ({'transfer'} if transfer else set()) | (set() if weights else {f'λ_{j}' for j in heads})
    assert set(learn.loss_func.terms)==terms
    assert set(_ways(learn))=={'rr'} | ({'both'} if 'T' in heads else set()) | ({'only'} if 'S' in heads or 'T' not in heads else set())
    if learn.panet is None or 'only' not in _ways(learn): return
    silent(learn.panet)
    with learn.no_bar(): learn.evaluate(**_ways(learn)['only'])
    with learn.no_bar(), pytest.raises(AssertionError, match='PANet was called'): learn.evaluate(**_ways(learn)['both'])

@pytest.mark.parametrize('name', BASELINES)
def test_baselines_take_two_steps(name, items):
    learn = build(name, items)
    own = name=='baseline'
    assert isinstance(learn.model, Baseline) and learn.loss_func.margin==.3 and learn.dls.size==(96 if own else 64)
    assert (learn.dls.train.sampler.p, learn.dls.train.sampler.k)==((6,6) if own else (2,4))
    with learn.no_bar(), learn.no_logging(): learn.fit(1, cbs=TwoSteps())
    assert set(learn.loss_func.terms)=={'id_G','tri_G'} and set(_ways(learn))=={'only','rr'}

def test_baseline_recipe():
    lr = baseline_steps(1.)
    np.testing.assert_allclose([lr(e/60) for e in (0, 5, 10, 19, 20, 30, 45, 60)], [.01, .505, 1, 1, .6, .36, .216, .216])

def test_the_baseline_gets_its_recipe(items, tmp_path):
    "From pretrained weights: rate, steps, decay of every tensor, mirrored and erased but not shifted; as `baseline_same`, what PMNet has"
    import timm
    net = timm.create_model('resnet10t', num_classes=0); torch.save(net.state_dict(), tmp_path/'w.pth')
    learn = {n: _learner(table_rows[n], _loaders(table_rows[n], items, 64, 2, 4), 'resnet10t', str(tmp_path/'w.pth')) for n in ('baseline','baseline_same')}
    own,same = learn.values()
    assert own.lr==same.lr==1e-4 and own.wd==same.wd==5e-4 and own.loss_func.label_smoothing==0
    with own.no_bar(), own.no_logging(): own.fit_two_stage(0, 1, folder=tmp_path/'r')
    assert json.loads((tmp_path/'r'/'run.json').read_text())['rates']==pytest.approx([baseline_steps(1e-4)(o) for o in (0,.25,.5,.75,1)])
    for o in (own,same):
        o.create_opt()
        spared = [p for p in o.model.parameters() if not o.opt.state[p].get('do_wd', True)]
        assert len(spared)==(0 if o is own else sum(isinstance(m, nn.modules.batchnorm._BatchNorm)*2 for m in o.model.modules()))
    own_tfms,same_tfms = ({type(t).__name__: t for t in o.dls.train.after_batch.fs} for o in (own,same))
    assert own_tfms['FlipPadCrop'].pad==0 and same_tfms['FlipPadCrop'].pad is None and own_tfms['FlipPadCrop'].p==.5
    erased = own_tfms['RandomErasing']; erased.p = 1.
    x = erased(TensorImage(torch.zeros(8,3,32,32)), split_idx=0)
    white = (x*torch.tensor([.229,.224,.225]).view(3,1,1) + torch.tensor([.485,.456,.406]).view(3,1,1))[x!=0]
    assert (x!=0).any((1,2,3)).all() and abs(white.mean()-.75)<.01 and (x==0).any() # 0.5 in units of mean and deviation 0.5

def test_what_the_losses_were_asked_is_saved(items, tmp_path):
    dls = _loaders(table_rows['full'], items, 64, 2, 4)
    learn = reid_learner(dls, 'resnet10t', pretrained=False, feat_dim=32, uniform=True, transfer='detach', loss_weights=(2,1,1), margin=.5)
    with learn.no_bar(), learn.no_logging(): learn.fit(1, cbs=TwoSteps())
    again = ReIDLearner.from_pretrained(learn.save_pretrained(tmp_path/'m'), dls)
    assert again.part_transfer.detach and tuple(again.fixed_weighting.weights)==(2,1,1) and again.loss_func.margin==.5

def test_other_queries(items):
    learn = build('exp1', items)
    with learn.no_bar():
        a,b = learn.evaluate(),learn.evaluate(queries=items[items.split=='query'].iloc[::-1], gallery=items[items.split=='gallery'])
        one = learn.evaluate(queries=items[items.split=='query'].iloc[:1])
    pd.testing.assert_series_equal(a, b)
    assert one['mAP']!=a['mAP']

def test_untrained_is_not_trained(items, tmp_path):
    out,learn = run_row('untrained', 0, items, tmp_path/'r', **SMALL),build('untrained', items)
    with learn.no_bar(): same = learn.evaluate()
    assert out['log']=={} and out['metrics']['only']=={k: round(v, 5) for k,v in same.items()} and not (tmp_path/'r').exists()

# --- runs × seeds
def test_rate_schedule_and_weights_are_passed_on(items, tmp_path):
    "From a checkpoint in a short run: its weights, the rate asked for, half a cosine"
    import timm
    net = timm.create_model(SMALL['arch'], num_classes=0); torch.save(net.state_dict(), tmp_path/'w.pth')
    kw = {**SMALL, 'weights': str(tmp_path/'w.pth'), 'pmnet_epochs': 1}
    run_row('exp4', 0, items, tmp_path/'r', lr=2e-3, cosine=True, **kw)
    rates = json.loads((tmp_path/'r'/'run.json').read_text())['rates']
    assert max(rates)<=2e-3 and rates[2]>rates[3]>rates[4] and rates[4]==pytest.approx(2e-5)
    steps = run_row('exp4', 0, items, tmp_path/'s', **kw) and json.loads((tmp_path/'s'/'run.json').read_text())['rates']
    assert steps[1]==pytest.approx(1.5e-4) and steps[4]==pytest.approx(1.5e-6)

@pytest.fixture(scope='module')
def done(items, tmp_path_factory):
    out = tmp_path_factory.mktemp('tables')/'t'
    others = items[items.split!='train']
    return out, run_tables(items, out, ('baseline_same','exp4'), seeds=2, data='synth', workers=2, tests=dict(occluded_small=others, vehicleid_small=others.assign(split='gallery', cam=-1)), **SMALL)

def test_runs_are_written_down(done):
    out,runs = done
    assert runs==read_runs(out/'runs.jsonl') and {(r['row'],r['seed']) for r in runs}=={(n,s) for n in ('baseline_same','exp4') for s in (0,1)}
    for r in runs:
        assert r['arguments']=={'bf16': False, 'lr': None, 'cosine': False, **SMALL} and r['switches']==(dict(uniform=True, baseline=False, scale=1.) if r['row']=='exp4' else dict(wd_bn_bias=False, baseline=True, scale=1.)) and r['data']=='synth' and r['ids']==13 and not r['resumed'] and r['seconds']['all']>=r['seconds']['train']>0<=r['seconds']['panet']
        ways = ['only','both'] if r['row']=='exp4' else ['only']
        assert set(r['metrics'])=={'rr'} | {t+w for w in ways for t in ('','occluded_','occluded_small_','vehicleid_small_')} and len(r['log']['epoch'])==1
        for w in ways: assert r['metrics'][f'occluded_small_{w}']==r['metrics'][w] and {'mAP','CMC@1','mAP std','CMC@1 std'} <= set(r['metrics'][f'vehicleid_small_{w}']) # the "other" set was the data's own
        assert torch.__version__.startswith(r['versions']['torch'])
    assert runs[0]['metrics']['only']!=runs[0]['metrics']['occluded_only']
    assert sorted(p.name for p in out.iterdir())==['items.csv','logs','occluded','occluded.csv','occluded_small.csv','runs.jsonl','tables.json','vehicleid_small.csv'] # unfinished business is gone

def test_same_seed_same_numbers(done, items, tmp_path):
    again = run_tables(items, tmp_path/'t', ('exp4',), seeds=1, data='synth', workers=2, **SMALL)[0]
    first = next(r for r in done[1] if (r['row'],r['seed'])==('exp4',0))
    assert again['metrics']=={k: v for k,v in first['metrics'].items() if 'small' not in k} and again['log']==first['log']

def test_tables_show_the_runs(done):
    runs = done[1]
    mine = [100*r['metrics']['both']['mAP'] for r in runs if r['row']=='exp4']
    t = table_of(runs, 'III')
    assert list(table_of(runs, 'II small').columns)==['CMC@1','CMC@5','seeds'] and list(table_of(runs, 'VII small').index)==[]
    assert list(t.index)==['Exp-4 stripes'] and t.mAP.iloc[0]==f'{np.mean(mine):.1f} ± {np.std(mine, ddof=1):.1f}' and t['paper mAP'].iloc[0]=='79.9'
    assert table_of(runs[:1], table_lines[1].table).loc['Baseline, PMNet\'s size and steps','mAP'].count('±')==0
    text = tables_markdown(runs)
    assert '**Table III**' in text and '**Table IV**' not in text and f'| Exp-4 stripes | {t.mAP.iloc[0]} |' in text

def test_killed_at_any_moment_it_goes_on(items, path, tmp_path, done):
    "SIGKILL of the whole tree while a run trains; the command given again ends with the numbers of the unbroken runs"
    code = f"from vehicle_reid.tables import run_tables; from vehicle_reid.datasets import read_veri; run_tables(read_veri({str(path)!r}), {str(tmp_path/'t')!r}, ('baseline_same','exp4'), seeds=1, data='synth', workers=2, **{SMALL!r})"
    p = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.time()+90
    while time.time()<until and not any((tmp_path/'t'/f'{o.parent.name}.part.spent').exists() for o in (tmp_path/'t').glob('*-0/run.json')): time.sleep(.1)
    p.send_signal(signal.SIGKILL); p.wait()
    time.sleep(2.5) # its children notice
    runs = run_tables(items, tmp_path/'t', ('baseline_same','exp4'), seeds=1, data='synth', workers=2, **SMALL)
    key = lambda r: (r['row'], r['seed'])
    assert any(r['seconds']['earlier']>=1 for r in runs) and all(r['seconds']['all']>=r['seconds']['earlier']+r['seconds']['train'] for r in runs)
    assert not list((tmp_path/'t').glob('.*')) and not list((tmp_path/'t').glob('*.spent'))
    assert {key(r): (r['metrics']['only'], r['log']) for r in runs}=={key(r): (r['metrics']['only'], r['log']) for r in done[1] if r['seed']==0}

def test_a_run_whose_parent_died_while_it_was_importing_ends(items, tmp_path):
    "It must not train on beside the run that takes its place"
    items.to_csv(tmp_path/'items.csv', index=False)
    job = dict(name='baseline_same', seed=0, folder=str(tmp_path/'run'), items=str(tmp_path/'items.csv'), tests={}, result=str(tmp_path/'r.json'), one_thread=True, parent=-1, **SMALL|dict(pmnet_epochs=1000))
    done = subprocess.run([sys.executable, '-c', 'from vehicle_reid.tables import _job; _job()'], input=json.dumps(job), text=True, capture_output=True, timeout=300)
    assert done.returncode==1 and not done.stderr and not (tmp_path/'r.json').exists()

def test_runs_wait_only_for_the_panet_of_their_seed(tmp_path):
    jobs = [dict(name=n, panet=str(tmp_path/f'panet-{s}')) for s in (0,1) for n in ('full','exp6','exp1','exp4','baseline')]
    def starts(running=()): # names and seeds that start beside `running`, were there slots for all
        left,running,out = list(jobs),list(running),[]
        for j in running: left.remove(j)
        while j := _ready(left, running): left.remove(j); running.append(j); out.append((j['name'], j['panet'][-1]))
        return out
    free = lambda s: [('exp1',s),('exp4',s),('baseline',s)]
    assert starts()==[('full','0'),*free('0'),('full','1'),*free('1')]
    assert starts([jobs[0]])==[*free('0'),('full','1'),*free('1')] # full trains it, exp6 waits
    jobs.pop(0)
    assert starts()[0]==('exp6','0') # full has failed: exp6 tries
    (tmp_path/'panet-1').mkdir(); (tmp_path/'panet-1'/'panet').write_text('') # there, and not scored yet
    assert starts()==[('exp6','0'),*free('0'),('full','1'),*free('1')]
    (tmp_path/'panet-1'/'parts.json').write_text('{}')
    assert starts()==[('exp6','0'),*free('0'),('full','1'),('exp6','1'),*free('1')]

def test_a_panet_of_photographs_is_there_as_well(path, tmp_path):
    "parts.json, for which other rows wait, is written where no truth is known, too"
    shutil.copytree(path, tmp_path/'photos', ignore=shutil.ignore_patterns('truth'))
    _panet(tmp_path/'panet-0', 0, read_veri(tmp_path/'photos'), 'resnet10t', False, 64, 1, False, None, tmp_path/'masks')
    done = json.loads((tmp_path/'panet-0'/'parts.json').read_text())
    assert done['parts']=={} and done['images']==0 and len(done['log']['epoch'])==1

def in_the_way(out, items, *tags):
    "A folder of `run_tables` in which the runs `tags` fail: theirs holds something else"
    n = items.split.value_counts()
    out.mkdir()
    for tag in tags: (out/tag).mkdir(); (out/tag/'x').write_text('in the way')
    (out/'tables.json').write_text(json.dumps({**SMALL, 'data': '', 'images': int(n.train), 'ids': 13, 'queries': int(n['query']), 'gallery': int(n['gallery'])}))

def test_one_failure_does_not_stop_the_others(items, tmp_path):
    "Not in its wave, nor those that wait for another's PANet; a failed run can be repeated"
    out = tmp_path/'t'
    in_the_way(out, items, 'baseline_same-0', 'exp6-0')
    with pytest.raises(RuntimeError, match='baseline_same with seed 0 failed'): run_tables(items, out, ('baseline_same','exp6','exp2','exp1'), seeds=1, **SMALL)
    runs = read_runs(out/'runs.jsonl')
    assert {r['row'] for r in runs}=={'exp2','exp1'} and (out/'panet-0'/'parts.json').exists() # exp6 failed behind its PANet, exp2 used that
    shutil.rmtree(out/'exp6-0')
    with pytest.raises(RuntimeError, match='baseline_same'): run_tables(items, out, ('baseline_same','exp6'), seeds=1, **SMALL)
    assert {r['row'] for r in read_runs(out/'runs.jsonl')}=={'exp2','exp1','exp6'}

def test_a_panet_that_fails_is_tried_by_the_next_row_alone(items, tmp_path):
    out = tmp_path/'t'
    in_the_way(out, items)
    (out/'panet-0').write_text('no folder')
    with pytest.raises(RuntimeError, match='exp6 with seed 0 failed'): run_tables(items, out, ('exp6','exp2','baseline_same'), seeds=1, workers=2, **SMALL)
    assert [r['row'] for r in read_runs(out/'runs.jsonl')]==['baseline_same']
    assert {p.name for p in (out/'logs').iterdir()}=={'exp6-0.txt','exp2-0.txt','baseline_same-0.txt'} # all were tried

def test_arguments_at_their_defaults_count(items, tmp_path):
    "What a folder was made with and what was left out then are compared alike; a misspelt argument is no argument"
    run_tables(items, tmp_path/'t', ('untrained',), seeds=1, lr=5e-4, cosine=True, **SMALL)
    with pytest.raises(ValueError, match=r'lr=0.0005 \(now None\), cosine=True \(now False\)'): run_tables(items, tmp_path/'t', ('untrained',), seeds=1, **SMALL)
    assert json.loads((tmp_path/'t'/'tables.json').read_text())['lr']==5e-4
    assert len(run_tables(items, tmp_path/'t', ('untrained',), seeds=1, lr=5e-4, cosine=True, bf16=False, **SMALL))==1 # named or not, the same
    with pytest.raises(TypeError, match='no argument epochs'): run_tables(items, tmp_path/'u', ('untrained',), seeds=1, epochs=3, **SMALL)
    assert not (tmp_path/'u').exists()

def test_other_images_do_not_join_a_folder(items, tmp_path):
    run_tables(items, tmp_path/'t', ('untrained',), seeds=1, tests=dict(mine=items[items.split!='train']), **SMALL)
    with pytest.raises(ValueError, match='another table of images under the name mine'):
        run_tables(items, tmp_path/'t', ('untrained',), seeds=2, tests=dict(mine=items[items.split!='train'].iloc[1:]), **SMALL)
    swapped = items.copy(); train = swapped.split=='train'; swapped.loc[train,'vid'] = swapped.vid[train].values[::-1] # as many of everything
    with pytest.raises(ValueError, match='under the name items'): run_tables(swapped, tmp_path/'t', ('untrained',), seeds=2, **SMALL)
    shutil.copytree(Path(items.path.iloc[0]).parents[1], tmp_path/'moved')
    assert len(run_tables(read_veri(tmp_path/'moved'), tmp_path/'t', ('untrained',), seeds=2, **SMALL))==2

def test_each_run_sees_one_of_the_visible_gpus(monkeypatch):
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    assert _gpu_env(None)=={} and _gpu_env(1)=={'CUDA_VISIBLE_DEVICES': '1'}
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '2, GPU-5f3')
    assert [_gpu_env(i)['CUDA_VISIBLE_DEVICES'] for i in (0,1)]==['2','GPU-5f3']

def test_runs_share_the_gpus(items, tmp_path, monkeypatch):
    "Two slots, two devices, five runs: each process is shown one, no two at a time the same. Each says so itself as Python starts; whether the devices are there does not matter to what it is shown"
    (tmp_path/'site').mkdir(); (tmp_path/'site'/'sitecustomize.py').write_text(f'''
import atexit, os, time
gpu = os.environ.get('CUDA_VISIBLE_DEVICES')
def note(what): open({str(tmp_path/'notes')!r}, 'a').write(f'{{time.time()}} {{what}} {{gpu}}\\n')
note('from'); atexit.register(note, 'to')
''')
    monkeypatch.syspath_prepend(str(tmp_path/'site')); monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '3,5')
    items.to_csv(tmp_path/'items.csv', index=False)
    jobs = [dict(name='untrained', seed=s, folder=str(tmp_path/f'untrained-{s}'), panet=None, items=str(tmp_path/'items.csv'), tests={}, **SMALL) for s in range(5)]
    assert not _run_jobs(jobs, tmp_path, 2, 2, {}, SMALL) and len(read_runs(tmp_path/'runs.jsonl'))==5
    held,used = set(),[]
    for _,what,gpu in sorted(o.split() for o in (tmp_path/'notes').read_text().splitlines()):
        if what=='to': held.remove(gpu); continue
        assert gpu not in held; held.add(gpu); used.append(gpu)
    assert set(used)=={'3','5'} and len(used)==5 and not held

# --- the command
TINY = '--seeds 1 --arch resnet10t --weights none --size 64 --panet-epochs 1 --pmnet-epochs 1 --p 2 --k 4 --feat-dim 32'.split()

def test_command(path, tmp_path, capsys):
    args = ['tables', '--data', str(path), '--out', str(tmp_path/'t'), '--rows', 'baseline_same', *TINY]
    assert main(args)==0
    assert '**Table I**' in capsys.readouterr().out and (tmp_path/'t'/'tables.md').read_text().count('|')>10
    assert main([*args[:-1], '64'])==1 and 'feat_dim=32 (now 64)' in capsys.readouterr().err
    assert main([o if o!='baseline_same' else 'exp9' for o in args])==1 and 'No such row: exp9' in capsys.readouterr().err

def test_command_on_vehicleid(items, tmp_path, capsys):
    "Table II, from the whole method alone: its own numbers in ten trials on each of the test lists that are there"
    (tmp_path/'V'/'train_test_split').mkdir(parents=True); (tmp_path/'V'/'image').mkdir()
    lists = dict(train_list=items[items.split=='train'], test_list_800=items[items.split!='train'], test_list_2400=items[items.split=='query'])
    for n,o in lists.items():
        (tmp_path/'V'/'train_test_split'/f'{n}.txt').write_text(''.join(f'{i:07} {v}\n' for i,v in zip(o.index, o.vid)))
        for i,p in zip(o.index, o.path): shutil.copy(p, tmp_path/'V'/'image'/f'{i:07}.jpg')
    assert main(['tables', '--data', str(tmp_path/'V'), '--testset', 'small', '--out', str(tmp_path/'t'), '--rows', 'full', *TINY])==0
    run,text = read_runs(tmp_path/'t'/'runs.jsonl')[0],capsys.readouterr().out
    for s in ('small','large'):
        for way in ('only','both'): assert 0<run['metrics'][f'vehicleid_{s}_{way}']['CMC@1']<=1 and run['metrics'][f'vehicleid_{s}_{way}']['mAP std']>=0
        assert f"**Table II {s}** (the paper's: VehicleID)" in text
    assert run['metrics']['vehicleid_small_only']!=run['metrics']['vehicleid_large_only'] and 'vehicleid_medium_only' not in run['metrics'] and 'II medium' not in text
    assert f"| PMNet only | {100*run['metrics']['vehicleid_large_only']['CMC@1']:.1f} |" in text

def test_command_with_an_occluded_test_set(path, items, tmp_path, capsys):
    "Table VII small: the folder's own queries and gallery"
    queries,gallery = (items[items.split==s] for s in ('query','gallery'))
    for n,paths in (('query', queries.path[::2]), ('gallery', gallery.path)):
        (tmp_path/'o'/n).mkdir(parents=True)
        for p in paths: shutil.copy(p, tmp_path/'o'/n)
    assert main(['tables', '--data', str(path), '--occluded', str(tmp_path/'o'), '--out', str(tmp_path/'t'), '--rows', 'baseline_patches', 'untrained', *TINY])==0
    learn,run = build('untrained', items),next(r for r in read_runs(tmp_path/'t'/'runs.jsonl') if r['row']=='untrained')
    with learn.no_bar(): same = learn.evaluate(queries=queries[::2], gallery=gallery)
    assert run['metrics']['occluded_small_only']=={k: round(v, 5) for k,v in same.items()}!=run['metrics']['only']
    assert 'Baseline, with patches' in table_of(read_runs(tmp_path/'t'/'runs.jsonl'), 'VII small').index

def test_paths_may_be_relative(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(path, 'VeRi')
    runs = run_tables(read_veri('VeRi'), 'out', ('untrained',), seeds=1, **SMALL)
    assert len(runs)==1 and runs[0]['metrics']['only']['mAP']>0

def test_a_table_with_one_line_compares_nothing():
    m = dict(mAP=.5, **{'CMC@1': .4, 'CMC@5': .6})
    def text(*names): return tables_markdown([dict(row=n, seed=0, metrics=dict(only=m, occluded_only=m)) for n in names])
    assert 'Table III' not in tables_markdown([dict(row='full', seed=0, metrics=dict(only=m, both=m))]) and 'Table III' in tables_markdown([dict(row='exp6', seed=0, metrics=dict(both=m))]) # of the paper's lines, `full`'s stands in every table
    assert 'Table I**' in text('baseline_same') and 'Table VII' not in text('baseline_same') and 'Table VII large' in text('baseline_same','baseline')
