"The learner: every verb, each callback removable, resume equal to an unbroken run, inference without PANet, bad input"
import json, subprocess, sys
import numpy as np, pandas as pd, pytest, torch
from fastai.callback.core import Callback, CancelValidException
from fastai.torch_core import set_seed
import fastai.callback.schedule, fastai.callback.fp16 # verbs: fit_one_cycle, lr_find, fine_tune, to_fp16
from vehicle_reid.all import (Baseline, FixedWeighting, FusedAdam, PANet, ReIDDataLoaders, ReIDLearner, WarmupSteps, baseline_learner, has_fast_bf16, part_transfer_loss, reid_learner, synth_veri)

@pytest.fixture(scope='module')
def path(tmp_path_factory): return synth_veri(tmp_path_factory.mktemp('data')/'synth', n_ids=10, n_test=4, n_cams=3, n_workers=1)

@pytest.fixture(scope='module')
def cache(tmp_path_factory): return tmp_path_factory.mktemp('masks')

@pytest.fixture
def dls(path): return ReIDDataLoaders.from_veri(path, size=64, p=3, k=2, num_workers=0)

def learner(dls, tmp_path, **kw):
    torch.manual_seed(0)
    learn = reid_learner(dls, 'resnet10t', pretrained=False, feat_dim=32, path=tmp_path, **kw)
    return learn

def quiet(learn): return learn.no_bar(), learn.no_logging()

def two_stage(learn, folder, cache, epochs=2, seed=1, **kw):
    set_seed(seed)
    with learn.no_bar(), learn.no_logging(): learn.fit_two_stage(1, epochs, folder=folder, cache=cache, panet_bs=8, **kw)
    return learn

class Stop(Callback):
    "Ends training from outside, as a power cut would, when `epoch` begins"
    order = 80
    def __init__(self, epoch): self.at = epoch
    def before_epoch(self):
        if self.epoch==self.at: raise KeyboardInterrupt

def test_resumed_equals_unbroken(dls, tmp_path, cache):
    whole = two_stage(learner(dls, tmp_path), tmp_path/'whole', cache, 3)
    with pytest.raises(KeyboardInterrupt): two_stage(learner(dls, tmp_path), tmp_path/'cut', cache, 3, cbs=Stop(2))
    assert (tmp_path/'cut'/'pmnet.ckpt').exists() and (tmp_path/'cut'/'panet'/'model.safetensors').exists()
    again = two_stage(learner(dls, tmp_path), tmp_path/'cut', cache, 3, seed=99)
    for (n,a),b in zip(whole.model.state_dict().items(), again.model.state_dict().values()): assert torch.equal(a, b), n
    logs = [pd.read_csv(tmp_path/o/'pmnet.csv') for o in ('whole','cut')]
    pd.testing.assert_frame_equal(*logs)
    assert list(logs[0].epoch)==[0,1,2] and not (tmp_path/'cut'/'pmnet.ckpt').exists()

def test_folder_is_respected(dls, tmp_path, cache):
    learn = two_stage(learner(dls, tmp_path), tmp_path/'run', cache, 1)
    before = (tmp_path/'run'/'pmnet'/'model.safetensors').read_bytes()
    with pytest.raises(ValueError, match='pmnet_epochs was 1, is 2'): two_stage(learner(dls, tmp_path), tmp_path/'run', cache, 2)
    (tmp_path/'other').mkdir(); (tmp_path/'other'/'thesis.txt').write_text('mine')
    with pytest.raises(ValueError, match='no run.json'): two_stage(learner(dls, tmp_path), tmp_path/'other', cache, 1)
    assert (tmp_path/'run'/'pmnet'/'model.safetensors').read_bytes()==before and (tmp_path/'other'/'thesis.txt').read_text()=='mine'
    (tmp_path/'run'/'panet.ckpt').write_bytes(b'') # as if killed just before it went
    done = two_stage(learner(dls, tmp_path), tmp_path/'run', cache, 1) # finished: loads, trains nothing
    assert not (tmp_path/'run'/'panet.ckpt').exists()
    for a,b in zip(learn.model.state_dict().values(), done.model.state_dict().values()): assert torch.equal(a, b)

def test_epoch_table_and_trackers(dls, tmp_path):
    from fastai.callback.tracker import SaveModelCallback, EarlyStoppingCallback
    from fastai.callback.progress import CSVLogger
    learn = learner(dls, tmp_path)
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(2, 1e-3, cbs=[SaveModelCallback('mAP'), EarlyStoppingCallback('mAP', patience=5), CSVLogger()])
    log = pd.read_csv(tmp_path/'history.csv')
    assert {'id_G','id_S','id_T','tri_G','tri_S','tri_T','transfer','mAP','CMC@1','CMC@5'} <= set(log.columns)
    assert log[['id_G','tri_S','transfer','mAP']].notna().all().all() and (tmp_path/'models'/'model.pth').exists()
    assert log['mAP'].between(0,1).all()

def test_recorded_loss_is_eq8(dls, tmp_path):
    learn = learner(dls, tmp_path)
    class Check(Callback):
        order = 5
        def after_loss(self):
            if not self.training: return
            t,s = self.loss_func.terms,self.model.log_var
            eq6 = sum((-s[i]).exp()*t[f'id_{h}'] for i,h in enumerate('GST')) + s.sum()/2
            eq8 = eq6 + (t['tri_G']+t['tri_S']+t['tri_T'])/3 + part_transfer_loss(self.pred['maps'])
            torch.testing.assert_close(self.loss_grad, eq8); torch.testing.assert_close(self.learn.loss, eq8)
            self.learn.checked = True
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3, cbs=Check())
    assert learn.checked

def test_hul_weights_are_trained_without_decay_and_saved(dls, tmp_path):
    learn = learner(dls, tmp_path)
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-2)
    assert (learn.model.log_var!=0).all() and learn.opt.state[learn.model.log_var]['do_wd'] is False
    assert len(learn.uncertainty_weighting.history)==len(dls.train)
    learn.save('hul'); lam = learn.model.weights.clone()
    other = learner(dls, tmp_path); other.load('hul')
    assert torch.equal(other.model.weights, lam)

@pytest.mark.parametrize('without', ['uncertainty_weighting', 'part_transfer', 'loss_terms', 're_id_metrics'])
def test_each_callback_is_removable(dls, tmp_path, without):
    learn = learner(dls, tmp_path)
    cb = {c.name: c for c in learn.cbs}.get(without) or {c.name.replace('re_id','reid'): c for c in learn.cbs}[without.replace('re_id','reid')]
    learn.remove_cb(cb)
    if 'id_metrics' in without: learn.add_cb(NoValidation())
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)
    assert np.isfinite(float(learn.recorder.losses[-1]))

class NoValidation(Callback):
    def before_validate(self): raise CancelValidException

@pytest.mark.parametrize('kw', [dict(students=False), dict(teachers=False), dict(students=False, teachers=False), dict(global_head=False), dict(uniform=True), dict(share=False)])
def test_rows_fit(dls, tmp_path, kw):
    learn = learner(dls, tmp_path, **kw)
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)
    assert 0<=learn.evaluate()['mAP']<=1

def test_what_would_be_ignored_is_refused(dls, tmp_path):
    "An argument that this network has no use for is an error that names it, before anything is trained"
    base = Baseline(len(dls.vocab), 'resnet10t', pretrained=False)
    panet = PANet(len(dls.vocab), 'resnet10t', pretrained=False)
    for kw,error,match in [(dict(model=base, share=False), TypeError, 'share'), (dict(model=base, loss_weights=(1,1,1)), ValueError, 'loss_weights'), (dict(model=base, fresh_parts=True), ValueError, 'fresh_parts'),
            (dict(transfer='detatch'), ValueError, "'detatch' is none of"), (dict(transfer='detach', students=False), ValueError, "no pairs of Student and Teacher"), (dict(uniform=True, panet=panet), ValueError, 'panet'),
            (dict(uniform=True, temperature=.5), ValueError, 'temperature'), (dict(teachers=False, panet=panet), ValueError, 'no Teachers'), (dict(teachers=False, fresh_parts=True), ValueError, 'fresh_parts'),
            (dict(uniform=True, threshold='half'), ValueError, 'threshold'), (dict(threshold='max'), ValueError, "'max'")]:
        with pytest.raises(error, match=match): learner(dls, tmp_path, **kw) if 'model' not in kw else reid_learner(dls, path=tmp_path, **kw)
    for kw in (dict(atention='mam'), dict(n_parts=7), dict(loss_weights=(9,9,9))):
        with pytest.raises(TypeError, match=next(iter(kw))): baseline_learner(dls, 'resnet10t', pretrained=False, **kw)

def test_how_parts_are_found_is_remembered(dls, tmp_path):
    for fresh,threshold in ((True,'half'), (False,'mean')):
        saved = learner(dls, tmp_path, fresh_parts=fresh, threshold=threshold).save_pretrained(tmp_path/f'm{fresh}')
        again = ReIDLearner.from_pretrained(saved, dls)
        assert again.panet is not None and (again.part_masks.fresh,again.part_masks.threshold)==(fresh,threshold)

def test_baseline_and_fixed_weights(dls, tmp_path):
    learn = reid_learner(dls, model=Baseline(len(dls.vocab), 'resnet10t', pretrained=False), margin=.3, path=tmp_path)
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)
    assert 0<=learn.evaluate()['mAP']<=1
    learn = learner(dls, tmp_path); learn.remove_cb(learn.uncertainty_weighting); learn.add_cb(FixedWeighting(4,1,1))
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)
    torch.testing.assert_close(learn.model.weights, torch.tensor([4.,1.,1.]))

def test_lr_find_fine_tune_summary_validate(dls, tmp_path):
    import matplotlib; matplotlib.use('agg')
    learn = learner(dls, tmp_path)
    before = {k:v.clone() for k,v in learn.model.state_dict().items()}
    with learn.no_bar(): learn.lr_find(num_it=4, show_plot=False)
    for k,v in learn.model.state_dict().items(): assert torch.equal(v, before[k]), k
    assert 'Total params' in str(learn.summary())
    with learn.no_bar(), learn.no_logging(): learn.fine_tune(1, freeze_epochs=1); res = learn.validate()
    assert 0<=res[-3]<=1

@pytest.mark.parametrize('to', ['to_fp16', 'to_bf16'])
def test_mixed_precision_on_the_cpu(dls, tmp_path, to):
    learn = getattr(learner(dls, tmp_path), to)()
    seen = dict(conv=set(), loss=set(), outside=set())
    learn.model.trunk.register_forward_hook(lambda m, i, o: seen['conv'].add(o.dtype))
    class Look(Callback):
        order = 20
        def after_loss(self):
            if self.training: seen['loss'].add(self.pred['features']['G'].dtype)
        def before_backward(self): seen['outside'].add(torch.is_autocast_enabled('cpu'))
        def after_batch(self): seen['outside'].add(torch.is_autocast_enabled('cpu'))
    with learn.no_bar(), learn.no_logging(): learn.fit_two_stage(1, 1, folder=tmp_path/'run', cache=tmp_path/'masks', cbs=Look())
    assert seen==dict(conv={torch.bfloat16 if has_fast_bf16('cpu') else torch.float32}, loss={torch.float32}, outside={False}) and not torch.is_autocast_enabled('cpu')
    assert np.isfinite(float(learn.recorder.losses[-1])) and {p.dtype for p in learn.model.parameters()}=={torch.float32}
    assert learn.embed(dls.query_items.iloc[:2]).dtype==torch.float32
    assert not [c for c in learn.to_fp32().cbs if 'precision' in c.name]

@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA GPU')
def test_cuda_and_cpu_embed_alike(dls, tmp_path, path):
    learn = learner(dls, tmp_path); cpu = learn.embed(dls.query_items)
    gpu = ReIDDataLoaders.from_veri(path, size=64, p=3, k=2, num_workers=0, device='cuda')
    other = learner(gpu, tmp_path); other.model.load_state_dict(learn.model.state_dict())
    torch.testing.assert_close(other.embed(gpu.query_items), cpu, atol=1e-3, rtol=1e-3)

def test_evaluate_forms_and_pmnet_only_never_reads_panet(dls, tmp_path):
    learn = learner(dls, tmp_path)
    learn.save_pretrained(tmp_path/'m')
    again = ReIDLearner.from_pretrained(tmp_path/'m', dls)
    (tmp_path/'m'/'panet'/'model.safetensors').rename(tmp_path/'hidden')
    only = again.evaluate() # would fail if PANet were read
    pd.testing.assert_series_equal(only, learn.evaluate())
    assert not hasattr(again, 'part_masks') and list(only.index)==['mAP','CMC@1','CMC@5','CMC@10','mINP']
    (tmp_path/'hidden').rename(tmp_path/'m'/'panet'/'model.safetensors')
    pd.testing.assert_series_equal(again.evaluate(teachers=True), learn.evaluate(teachers=True))
    assert 0<=again.evaluate(rerank=True)['mAP']<=1
    assert again.embed(dls.query_items, teachers=True).shape[1] > again.embed(dls.query_items).shape[1]

def test_export_and_load_in_a_fresh_process(dls, tmp_path):
    learn = learner(dls, tmp_path)
    learn.export('learner.pkl')
    img = dls.query_items.path.iloc[0]
    code = f"""
import warnings; warnings.simplefilter('ignore')
from fastai.learner import load_learner
import vehicle_reid.all
learn = load_learner({str(tmp_path/'learner.pkl')!r})
e = learn.embed([{img!r}]); print(e.shape[1], float(e.sum()))"""
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert out.returncode==0, out.stderr
    n,total = out.stdout.split()[-2:]
    e = learn.embed([img])
    assert int(n)==e.shape[1] and float(total)==pytest.approx(float(e.sum()), abs=1e-3)

def test_embed_takes_paths_tables_and_images(dls, tmp_path):
    from PIL import Image
    learn,p = learner(dls, tmp_path),dls.query_items.path.iloc[0]
    a,b,c = learn.embed([p]),learn.embed(dls.query_items.iloc[:1]),learn.embed([Image.open(p)])
    torch.testing.assert_close(a, b); torch.testing.assert_close(a, c)
    assert learn.predict(p).shape==a[0].shape

def test_bad_input(dls, tmp_path, path):
    learn = learner(dls, tmp_path)
    learn.save('small')
    with pytest.raises(RuntimeError, match='another network'): reid_learner(dls, 'resnet10t', pretrained=False, feat_dim=64, path=tmp_path).load('small')
    with pytest.raises(FileNotFoundError, match='reid.json'): ReIDLearner.from_pretrained(tmp_path/'nothing', dls)
    other = synth_veri(tmp_path/'two', n_ids=7, n_test=3, n_cams=3, n_workers=1)
    foreign = ReIDDataLoaders.from_veri(other, size=64, p=3, k=2, num_workers=0)
    learn.save_pretrained(tmp_path/'m')
    moved = ReIDLearner.from_pretrained(tmp_path/'m', foreign)
    with pytest.raises(ValueError, match='identities'): moved.fit(1)
    assert 0<=moved.evaluate()['mAP']<=1
    with pytest.raises(ValueError, match='no Teachers'): learner(dls, tmp_path, teachers=False).evaluate(teachers=True)

def test_an_untrained_panet_is_noticed(dls, tmp_path):
    import warnings
    learn = learner(dls, tmp_path)
    with learn.no_bar(), learn.no_logging():
        with pytest.warns(UserWarning, match='fit_panet'): learn.fit(1, 1e-3)
        learn.fit_panet(1, cache=tmp_path/'masks')
        with warnings.catch_warnings():
            warnings.simplefilter('error', UserWarning); learn.fit(1, 1e-3)

def test_warmup_steps():
    s = WarmupSteps(1.)
    assert s(0)==pytest.approx(.01) and s(10/120)==1 and s(39.9/120)==1 and s(40/120)==pytest.approx(.1) and s(.9)==pytest.approx(.01)

def test_every_picture_is_a_verb_that_gives_its_figure(dls, tmp_path):
    import matplotlib; matplotlib.use('agg')
    import matplotlib.pyplot as plt
    from matplotlib.figure import Figure
    learn = learner(dls, tmp_path)
    for verb in ('show_curves','show_weights'):
        with pytest.raises(ValueError, match='pmnet.csv'): getattr(learn, verb)()
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)
    for verb in [o for o in dir(learn) if o.startswith('show_') and o!='show_training_loop']: # that one is fastai's, and prints
        fig = getattr(learn, verb)(figsize=(5,4))
        assert isinstance(fig, Figure) and tuple(fig.get_size_inches())==(5,4), verb
        plt.close(fig)
    some = list(learn.dls.query_items.path[:2])
    assert isinstance(learn.show_rankings(some, k=3), Figure) and isinstance(learn.show_parts(some), Figure) and isinstance(learn.show_attention(some), Figure)
    plt.close('all')

# --- the optimizer
def literal_adam(p, grads, lr, wd, mom=.9, sqr_mom=.999, eps=1e-8):
    "Kingma & Ba, algorithm 1, with the decay in the gradient"
    m = v = torch.zeros_like(p)
    for t,g in enumerate(grads, 1):
        g = g + wd*p
        m,v = mom*m + (1-mom)*g, sqr_mom*v + (1-sqr_mom)*g*g
        p = p - lr*(m/(1-mom**t))/((v/(1-sqr_mom**t)).sqrt() + eps)
    return p

@pytest.mark.parametrize('format', [torch.contiguous_format, torch.channels_last])
def test_fused_adam_is_adam(format):
    g = torch.Generator().manual_seed(0)
    ps = [torch.nn.Parameter(torch.randn(4,3,3,3, generator=g).to(memory_format=format)) for _ in range(4)]
    first = [p.detach().clone() for p in ps]
    grads = [[torch.randn(4,3,3,3, generator=g) for _ in range(5)] for _ in ps]
    opt = FusedAdam([ps[:2], ps[2:]], lr=.1, wd=.5)
    opt.state[ps[1]]['do_wd'] = False
    opt.set_hyper('lr', [.1,.03])
    for t in range(5):
        opt.zero_grad()
        for p,o in zip(ps[:3], grads): p.grad = o[t].to(memory_format=format)
        opt.step()
    for i,(lr,wd) in enumerate([(.1,.5),(.1,0),(.03,.5)]): torch.testing.assert_close(ps[i].detach(), literal_adam(first[i], grads[i], lr, wd))
    assert torch.equal(ps[3], first[3]), 'a parameter without gradient stays'

def test_fused_adam_goes_on_from_its_state():
    def run(opt, p, n):
        for o in n: p.grad = o.clone(); opt.step()
    g = torch.Generator().manual_seed(0)
    grads = [torch.randn(7, generator=g) for _ in range(6)]
    a,b,c = (torch.nn.Parameter(torch.ones(7)) for _ in range(3))
    one = FusedAdam([a], lr=.1); run(one, a, grads)
    two = FusedAdam([b], lr=.1); run(two, b, grads[:3]); c.data.copy_(b)
    three = FusedAdam([c], lr=9.); three.load_state_dict(two.state_dict()); run(three, c, grads[3:])
    assert torch.equal(a, c)
    three.clear_state(); run(three, c, grads[:1]) # as `fit` does between runs

def test_compiled_in_place_trains_saves_and_embeds_alike(dls, tmp_path, cache):
    plain,compiled = two_stage(learner(dls, tmp_path), tmp_path/'a', cache, 1),learner(dls, tmp_path)
    compiled.model.compile(backend='aot_eager') # traced as ever, run without a compiler
    two_stage(compiled, tmp_path/'b', cache, 1)
    for (n,a),b in zip(plain.model.state_dict().items(), compiled.model.state_dict().values()): torch.testing.assert_close(a, b, msg=n)
    again = ReIDLearner.from_pretrained(tmp_path/'b', dls)
    torch.testing.assert_close(again.embed(dls.query_items), compiled.embed(dls.query_items))

def test_embed_under_autocast(dls, tmp_path):
    learn = learner(dls, tmp_path)
    a = learn.embed(dls.query_items)
    with torch.autocast('cpu', torch.bfloat16): b = learn.embed(dls.query_items)
    assert b.dtype==torch.float32 and not torch.equal(a, b)
    assert torch.cosine_similarity(a, b).min()>.99
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in learn.model.parameters() if p.ndim==4)
