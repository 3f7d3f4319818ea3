"Ranking metrics against slow literal loops and scikit-learn; the callback inside fastai's loop"
import subprocess, sys, warnings
import numpy as np, pandas as pd, pytest, torch
from hypothesis import given, settings, strategies as st
from sklearn.metrics import average_precision_score
from torch import nn
from fastai.callback.core import Callback, CancelValidException, TrainEvalCallback
from fastai.callback.progress import CSVLogger, ProgressCallback
from fastai.callback.schedule import lr_find
from fastai.callback.tracker import EarlyStoppingCallback, SaveModelCallback, ReduceLROnPlateau
from fastai.callback.training import ShortEpochCallback
from fastai.data.core import Datasets
from fastai.learner import Learner, load_learner
from fastai.metrics import accuracy
from vehicle_reid import metrics
from vehicle_reid.losses import LossTerms
from vehicle_reid.metrics import rank_metrics, evaluate_features, vehicleid_metrics
from vehicle_reid.monitor import ReIDMetrics

def slow(dist, q_ids, g_ids, q_cams, g_cams, ks):
    "Query by query, image by image"
    ap,cmc,inp = [],[],[]
    for i in range(len(q_ids)):
        kept = [j for j in sorted(range(len(g_ids)), key=lambda j: (dist[i][j], j))
            if not (q_cams is not None and q_ids[i]==g_ids[j] and q_cams[i]==g_cams[j] and q_cams[i]>=0)]
        ranks = [r for r,j in enumerate(kept, 1) if g_ids[j]==q_ids[i]]
        if not ranks: ap.append(float('nan')); continue
        ap.append(sum(i/r for i,r in enumerate(ranks, 1))/len(ranks))
        cmc.append([float(ranks[0]<=k) for k in ks]); inp.append(len(ranks)/ranks[-1])
    return np.array(ap), np.mean(cmc, 0), np.mean(inp)

def case(seed, Q=13, G=40, n_ids=6, n_cams=3, ties=False):
    r = np.random.default_rng(seed)
    d = r.integers(0, 5, (Q,G)).astype(float) if ties else r.random((Q,G))
    return d, r.integers(0, n_ids, Q), r.integers(0, n_ids, G), r.integers(-1, n_cams, Q), r.integers(-1, n_cams, G)

def same(a, b):
    np.testing.assert_array_equal(a.ap, b.ap)
    assert a.series().equals(b.series()) and a.n_valid==b.n_valid

@settings(max_examples=40)
@given(st.integers(0, 10**6), st.booleans(), st.booleans())
def test_equals_slow_loop(seed, ties, cams):
    d,qi,gi,qc,gc = case(seed, ties=ties)
    if not cams: qc = gc = None
    m,(ap,cmc,inp) = rank_metrics(d, qi, gi, qc, gc, ks=(1,2,5)),slow(d, qi, gi, qc, gc, (1,2,5))
    np.testing.assert_allclose(m.ap, ap, rtol=1e-12)
    np.testing.assert_allclose([m.mAP, *m.cmc.values(), m.mINP], [np.nanmean(ap), *cmc, inp], rtol=1e-12)
    assert m.n_valid==(~np.isnan(ap)).sum() and ((m.series()>=0) & (m.series()<=1)).all()

@pytest.mark.parametrize('seed', range(5))
def test_ap_equals_sklearn(seed):
    d,qi,gi,qc,gc = case(seed)
    ap = rank_metrics(d, qi, gi, qc, gc).ap
    for i in range(len(qi)):
        keep = ~((gi==qi[i]) & (gc==qc[i]) & (gc>=0)); y = (gi==qi[i])[keep]
        if y.any(): assert ap[i]==pytest.approx(average_precision_score(y, -d[i,keep]), abs=1e-12)
        else: assert np.isnan(ap[i])

def test_camera_rule():
    d,q,g = np.array([[.1,.2,.3]]),[7],[7,8,7]
    assert rank_metrics(d, q, g).ap==[(1+2/3)/2]
    assert rank_metrics(d, q, g, [1], [1,1,2]).ap==[1/2] # the first is junk; another identity of that camera stays
    assert rank_metrics(d, q, g, [-1], [-1,1,2]).ap==[(1+2/3)/2] # unknown cameras are never junk
    m = rank_metrics(d, q, g, [1], [1,1,2])
    assert m.cmc=={1:0,5:1,10:1} and m.mINP==.5

def test_query_without_match():
    m = rank_metrics(np.array([[.1,.2],[.1,.2],[.1,.2]]), [1,2,9], [1,2], [0,5,0], [0,0])
    np.testing.assert_array_equal(m.ap, [np.nan,.5,np.nan]); assert m.n_valid==1 and m.mAP==.5 and m.cmc[1]==0
    assert '1 of 3 queries' in repr(m)
    with pytest.raises(ValueError, match="None of the 1 queries .* 2 gallery images once images of the query's own identity and camera"): rank_metrics(np.eye(2)[:1], [1], [1,2], [3], [3,0])
    with pytest.raises(ValueError, match='None of the 1 queries has a match among 2 gallery images. '): rank_metrics(np.eye(2)[:1], [1], [2,2])

def test_ties_stand_in_gallery_order():
    assert rank_metrics(np.zeros((1,3)), [1], [1,0,0]).mAP==1
    assert rank_metrics(np.zeros((1,3)), [1], [0,0,1]).mAP==pytest.approx(1/3)

@settings(max_examples=20)
@given(st.integers(0, 10**6))
def test_row_order_is_irrelevant(seed):
    d,qi,gi,qc,gc = case(seed); r = np.random.default_rng(seed+1); a,b = r.permutation(len(qi)),r.permutation(len(gi))
    m,n = rank_metrics(d, qi, gi, qc, gc),rank_metrics(d[a][:,b], qi[a], gi[b], qc[a], gc[b])
    np.testing.assert_array_equal(m.ap[a], n.ap); np.testing.assert_allclose(m.series(), n.series(), rtol=1e-12)
    np.testing.assert_array_equal(m.ap, rank_metrics(np.exp(d), qi, gi, qc, gc).ap) # only the order counts

@pytest.mark.parametrize('kind', [np.asarray, torch.tensor, lambda o: torch.tensor(o).float(), lambda o: np.asarray(o, dtype='float32'), lambda o: (torch.tensor(o)*100).int()])
def test_kinds_of_input(kind):
    d,qi,gi,qc,gc = case(3); d = np.round(d*64)/64
    want = rank_metrics(d if 'int' not in str(kind(d).dtype) else (d*100).astype(int), qi, gi, qc, gc)
    same(want, rank_metrics(kind(d), torch.tensor(qi), list(gi), pd.Series(qc), gc))

@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')
def test_cuda_equals_cpu():
    d,qi,gi,qc,gc = case(3, Q=50, G=500, ties=True)
    same(rank_metrics(d, qi, gi, qc, gc), rank_metrics(torch.tensor(d).cuda(), torch.tensor(qi).cuda(), gi, qc, torch.tensor(gc).cuda()))
    q,g = (torch.randint(-3, 4, (n,8)).float() for n in (50,500))
    same(evaluate_features(q, g, qi, gi, qc, gc), evaluate_features(q.cuda(), g.cuda(), qi, gi, qc, gc))

def test_read_only_arrays_are_taken_without_a_warning():
    d,qi,gi,_,_ = case(0)
    for o in (d,qi,gi): o.setflags(write=False)
    with warnings.catch_warnings(): warnings.simplefilter('error'); rank_metrics(d, qi, gi)

SPREADS = dict(even=lambda r,n: r.random(n), few_levels=lambda r,n: r.integers(0, 5, n), outlier=lambda r,n: np.r_[r.random(n-1), -1e30], subnormal=lambda r,n: r.random(n)*1e-42,
    huge=lambda r,n: r.choice([-3e38,0,3e38], n)*r.random(n), zeros=lambda r,n: r.choice([-0.,0.], n), one_far_hit=lambda r,n: r.random(n)**20)

@pytest.mark.parametrize('spread', SPREADS)
@pytest.mark.parametrize('n_ids', [2,40,1000])
@pytest.mark.parametrize('dtype', ['float32','float64'])
def test_counting_ranks_as_sorting_does(spread, n_ids, dtype):
    "Both ways to rank, over distributions that fill the bins in awkward ways; and with that the way of a GPU, on the CPU"
    r = np.random.default_rng(0); Q,G = 12,1500
    d = np.stack([SPREADS[spread](r, G) for _ in range(Q)]).astype(dtype)
    args = r.integers(0, n_ids, Q),r.integers(0, n_ids, G),r.integers(-1, 3, Q),r.integers(-1, 3, G)
    counted = next(metrics._rank_by_count([d.copy()], [slice(0, Q)], *args))
    sorted_ = next(metrics._rank_on_device([torch.tensor(d)], [slice(0, Q)], *map(torch.tensor, args)))
    for a,b in zip(counted, sorted_): np.testing.assert_allclose(a, b, rtol=1e-12)

def test_the_distances_given_stay_as_they_are():
    d,qi,gi,qc,gc = case(0); before = d.copy()
    rank_metrics(d, qi, gi, qc, gc); rank_metrics(torch.from_numpy(d), qi, gi, qc, gc)
    assert (d==before).all()

def test_metrics_alone_load_no_fastai():
    code = "import sys, vehicle_reid.metrics as m; bad = {'fastai','torchvision','matplotlib','cv2','timm'} & set(sys.modules); assert not bad, bad; assert m.ReIDMetrics.__name__=='ReIDMetrics'; assert 'fastai' in sys.modules"
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True); assert not done.returncode, done.stderr
    with pytest.raises(AttributeError, match='no attribute'): metrics.nothing_such

@pytest.mark.parametrize('chunk', [1,5,256])
@pytest.mark.parametrize('kind', [torch.tensor, np.asarray])
def test_features_equal_matrix(chunk, kind):
    r = np.random.default_rng(0); _,qi,gi,qc,gc = case(1)
    q,g = (kind(r.integers(-3, 4, (n,8)).astype('float32')) for n in (13,40)) # integers: every product is exact, ties abound
    same(evaluate_features(q, g, qi, gi, qc, gc, chunk=chunk), rank_metrics(-q@g.T, qi, gi, qc, gc))

def test_blocks_do_not_show(monkeypatch):
    d,qi,gi,qc,gc = case(5, Q=30, ties=True); whole = rank_metrics(d, qi, gi, qc, gc)
    rows = []; real = metrics._rank_rows
    monkeypatch.setattr(metrics, '_rank_rows', lambda d,*a: rows.append(len(d)) or real(d,*a))
    q,g = d[:,:6],np.random.default_rng(0).integers(0, 5, (40,6)).astype(float)
    evaluate_features(q, g, qi, gi, chunk=7); assert rows==[7,7,7,7,2]
    same(whole, rank_metrics(d, qi, gi, qc, gc))

def test_memory_is_bounded(monkeypatch):
    seen = []; real = metrics._rank_rows
    monkeypatch.setattr(metrics, '_rank_rows', lambda d,*a: seen.append(d.size) or real(d,*a))
    r = np.random.default_rng(0); q,g = r.random((20,2), dtype='f'),r.random((300000,2), dtype='f'); qi,gi = np.arange(20),np.arange(300000)%20
    m = evaluate_features(q, g, qi, gi); same(m, rank_metrics(-q@g.T, qi, gi))
    assert max(seen)<=2**22 and sum(seen)==2*20*300000

@pytest.mark.parametrize('change,words', [
    (dict(q_ids=[1,2]), r'q_ids has shape \(2,\), but the ranking has 3 queries'),
    (dict(g_ids=[1,2,3]), r'g_ids has shape \(3,\), but the ranking has 4 gallery'),
    (dict(q_cams=[1,2,3]), 'g_cams is missing'), (dict(g_cams=[1,2,3,4]), 'q_cams is missing'),
    (dict(q_cams=[1]*3, g_cams=[1]*5), 'g_cams has shape'), (dict(dist=np.zeros(4)), r'dist has shape \(4,\)'), (dict(dist=np.zeros((0,4))), 'non-empty'),
    (dict(ks=()), 'ks='), (dict(ks=(0,1)), 'at least 1')])
def test_bad_input(change, words):
    args = dict(dist=np.ones((3,4)), q_ids=[1,2,3], g_ids=[1,2,3,4])
    with pytest.raises(ValueError, match=words): rank_metrics(**{**args, **change})

@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize('kind', [torch.tensor, np.asarray])
def test_not_a_number(bad, kind):
    d = np.ones((3,4)); d[2,1] = bad
    with pytest.raises(ValueError, match='dist holds .* at row 2, column 1'): rank_metrics(kind(d), [1,2,3], [1,2,3,4])
    with pytest.raises(ValueError, match='g holds .* at row 2, column 1'): evaluate_features(kind(np.ones((2,4))), kind(d), [1,2], [1,2,3])
    with pytest.raises(ValueError, match='q has 3 features an image and g has 4'): evaluate_features(kind(np.ones((2,3))), kind(np.ones((2,4))), [1,2], [1,2])

def test_vehicleid():
    r = np.random.default_rng(0); ids = np.repeat(np.arange(8), [1,2,3,4,5,6,2,2]); f = r.normal(size=(25,4))
    v = vehicleid_metrics(f, ids, n_trials=6, seed=3)
    assert v.equals(vehicleid_metrics(torch.tensor(f), torch.tensor(ids), n_trials=6, seed=3)) and not v.equals(vehicleid_metrics(f, ids, n_trials=6, seed=4))
    assert list(v.index)==['mAP','CMC@1','CMC@5','CMC@10','mINP'] and list(v.columns)==['mean','std'] and v.loc['CMC@1','std']>0
    assert v.loc['CMC@10','mean']==1 and v.loc['mAP','mean']==pytest.approx(v.loc['mINP','mean'])
    assert (vehicleid_metrics(np.eye(8)[ids], ids)['mean']==1).all()
    with pytest.raises(ValueError, match='25 features came with 24 ids'): vehicleid_metrics(f, ids[1:])

def test_vehicleid_gallery_is_one_random_image_an_identity():
    ids = np.array([3,1,1,3,2,2,1]); seen = list(metrics._galleries(ids, 20, 0))
    for q,g in seen: assert sorted(ids[g])==[1,2,3] and sorted([*q,*g])==list(range(7))
    assert len({tuple(g) for _,g in seen})>5

@pytest.mark.parametrize('levels', [2,1000])
def test_vehicleid_shares_features_and_changes_nothing(levels):
    "Against a ranking of its own for each trial, as a GPU does it; with few levels ties abound"
    r = np.random.default_rng(0); ids = r.permutation(np.repeat(r.choice(10**6, 90, replace=False), r.integers(1, 9, 90)))
    x = r.integers(0, levels, (len(ids),4)).astype('f')
    shared = vehicleid_metrics(x, ids, 6, 1, ks=(1,3,20))
    rows = [evaluate_features(x[q], x[g], ids[q], ids[g], ks=(1,3,20)).series() for q,g in metrics._galleries(ids, 6, 1)]
    np.testing.assert_allclose(shared['mean'], pd.DataFrame(rows).mean(), rtol=1e-12); np.testing.assert_allclose(shared['std'], pd.DataFrame(rows).std(), rtol=1e-9)

def test_vehicleid_needs_a_second_image_of_some_identity():
    with pytest.raises(ValueError, match='None of the'): vehicleid_metrics(np.ones((3,2)), [1,2,3])

# --- the callback ---
C = torch.randn(12, 6, generator=torch.Generator().manual_seed(0))
def x_of(i): return C[i%12] + .5*torch.randn(6, generator=torch.Generator().manual_seed(i))
def y_of(i): return i%12 if i<60 else -1 # validation identities have no class

class Toy(nn.Module):
    heads = ['G']
    def __init__(self): super().__init__(); self.emb,self.fc = nn.Linear(6, 5),nn.Linear(5, 12)
    def forward(self, x): return self.fc(self.emb(x)) if self.training else nn.functional.normalize(self.emb(x))

class TermLoss(nn.Module):
    "A loss with one named term, as LossTerms needs"
    def __init__(self): super().__init__(); self.terms = {}
    def term_names(self, heads): return ['id_G']
    def forward(self, pred, y): self.terms = {'id_G': nn.functional.cross_entropy(pred, y)}; return self.terms['id_G']

def toy(tmp_path='.', cbs=None, **kwargs):
    torch.manual_seed(0)
    dls = Datasets(range(96), [[x_of],[y_of]], splits=[list(range(60)),list(range(60,96))]).dataloaders(bs=12, num_workers=0)
    vid = np.arange(60, 96)%12
    dls.query_items,dls.gallery_items = (pd.DataFrame(dict(vid=v, cam=np.arange(len(v))//8%3)) for v in (vid[:12],vid[12:]))
    kwargs = {'loss_func': nn.CrossEntropyLoss(), **kwargs}
    return Learner(dls, Toy(), cbs=[ReIDMetrics()] if cbs is None else cbs, path=tmp_path, lr=1e-2, **kwargs)

def direct(learn):
    f = learn.model.eval()(torch.stack([x_of(i) for i in range(60, 96)])).detach()
    q,g = learn.dls.query_items,learn.dls.gallery_items
    return evaluate_features(f[:12], f[12:], q.vid.values, g.vid.values, q.cam.values, g.cam.values)

def test_columns_and_values():
    learn = toy(); learn.fit(2)
    assert list(learn.recorder.metric_names)==['epoch','train_loss','valid_loss','mAP','CMC@1','CMC@5','time']
    want = direct(learn); row = learn.recorder.values[-1]
    assert row[1] is None and row[2:]==[want.mAP, want.cmc[1], want.cmc[5]] and len(learn.metrics)==0
    np.testing.assert_array_equal(learn.re_id_metrics.result.ap, want.ap)
    assert learn.validate()==[None, want.mAP, want.cmc[1], want.cmc[5]] and len(learn.metrics)==0
    assert learn.re_id_metrics.feats==[]

def test_trackers_and_csv(tmp_path):
    learn = toy(tmp_path)
    learn.fit(4, cbs=[SaveModelCallback('mAP'), EarlyStoppingCallback('CMC@1', patience=4), ReduceLROnPlateau('mAP', patience=9), CSVLogger()])
    log = pd.read_csv(tmp_path/'history.csv')
    assert list(log.columns)==['epoch','train_loss','valid_loss','mAP','CMC@1','CMC@5','time'] and len(log)==4 and log.valid_loss.isin(['None', np.nan]).all()
    assert log.mAP.max()==pytest.approx(direct(learn).mAP) # the best epoch was loaded

def test_early_stopping_stops():
    learn = toy(); learn.fit(6, lr=0., cbs=EarlyStoppingCallback('mAP', patience=2))
    assert len(learn.recorder.values)==3 and len(learn.metrics)==0

@pytest.mark.parametrize('order', [[LossTerms, ReIDMetrics], [ReIDMetrics, LossTerms]])
def test_beside_loss_terms_and_user_metrics(order):
    learn = toy(cbs=[o() for o in order], loss_func=TermLoss(), metrics=accuracy)
    for _ in range(2):
        learn.fit(1)
        assert list(learn.recorder.metric_names[3:-1])==['id_G','accuracy','mAP','CMC@1','CMC@5']
    assert learn.metrics.attrgot('name')==['accuracy'] and learn.recorder.values[-1][2]==pytest.approx(learn.loss_terms.means['id_G'])

def test_beside_loss_terms():
    learn = toy(cbs=[LossTerms(), ReIDMetrics()], loss_func=TermLoss())
    for _ in range(2): learn.fit(1); assert list(learn.recorder.metric_names[3:-1])==['id_G','mAP','CMC@1','CMC@5']

def test_users_metrics_stay():
    learn = toy(metrics=accuracy); learn.fit(1); learn.validate()
    assert list(learn.recorder.metric_names[3:-1])==['accuracy','mAP','CMC@1','CMC@5'] and learn.metrics.attrgot('name')==['accuracy']

class Break(Callback):
    "Ctrl-C in the second batch"
    def before_batch(self):
        if self.iter==1: raise KeyboardInterrupt

@pytest.mark.parametrize('again', ['fit', 'validate', 'lr_find'])
def test_interrupted_and_started_again(again):
    learn = toy(cbs=[LossTerms(), ReIDMetrics()], loss_func=TermLoss())
    with pytest.raises(KeyboardInterrupt): learn.fit(1, cbs=Break())
    if again=='fit': learn.fit(1)
    elif again=='validate': learn.validate()
    else: learn.lr_find(num_it=8, show_plot=False); learn.fit(1)
    assert list(learn.recorder.metric_names[3:-1])==['id_G','mAP','CMC@1','CMC@5'] and len(learn.metrics)==0

@pytest.mark.parametrize('every', [1,2])
def test_stands_aside(every):
    learn = toy(cbs=[ReIDMetrics(every)]); learn.lr_find(num_it=8, show_plot=False)
    assert learn.re_id_metrics.result is None and 'mAP' not in learn.recorder.metric_names and not learn.re_id_metrics.left_out
    preds,_ = learn.get_preds()
    assert preds.shape==(36,5) and learn.re_id_metrics.result is None
    learn.fit(1); assert learn.re_id_metrics.result is not None

@pytest.mark.parametrize('every,n,seen', [(1,3,[0,1,2]), (2,5,[1,3,4]), (3,3,[2]), (10,4,[3])])
def test_every(every, n, seen, tmp_path):
    passes = []
    class Count(Callback):
        def after_pred(self): passes.extend([self.epoch]*(not self.training))
    learn = toy(tmp_path, [ReIDMetrics(every=every)]); learn.add_cb(Count())
    learn.fit(n, cbs=[SaveModelCallback('mAP'), CSVLogger()])
    assert sorted(set(passes))==seen and {len(o) for o in learn.recorder.values}=={5}
    assert [i for i,o in enumerate(learn.recorder.values) if not np.isnan(o[2])]==seen
    assert len(pd.read_csv(tmp_path/'history.csv'))==n
    passes.clear(); learn.epoch = 0; assert not np.isnan(learn.validate()[1]) and passes # a validation that was asked for is done

def test_with_progress_bar_and_without_recorder():
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        learn = toy(cbs=[ReIDMetrics(every=2)], metrics=accuracy); assert any(isinstance(o, ProgressCallback) for o in learn.cbs)
        learn.fit(3); assert [o[2] for o in learn.recorder.values]==[None]*3 # nothing with a label was seen
        with learn.no_bar(): learn.fit(1)
        bare = toy(cbs=[TrainEvalCallback(), ReIDMetrics(every=2)], default_cbs=False); bare.fit(3)
    assert bare.re_id_metrics.result is not None

class NoValidation(Callback):
    order = -20
    def before_validate(self): raise CancelValidException

def test_validation_cancelled_by_another():
    learn = toy(); learn.add_cb(NoValidation()); learn.fit(2); assert len(learn.recorder.values)==2 and learn.re_id_metrics.result is None

def test_every_beside_cut_short_validation(): # somebody else's cancel stays one
    learn = toy(cbs=[ReIDMetrics(every=2)]); learn.fit(2, cbs=ShortEpochCallback(pct=.4, short_valid=True))
    assert len(learn.recorder.values)==2

def test_export_and_pickle(tmp_path):
    learn = toy(tmp_path, [ReIDMetrics()]); learn.fit(1); want = learn.model.emb.weight.clone()
    learn.export(); again = load_learner(tmp_path/'export.pkl')
    assert torch.equal(again.model.emb.weight, want) and again.re_id_metrics.every==1

def test_cut_short_gives_nan():
    learn = toy(); learn.fit(1, cbs=ShortEpochCallback(pct=.4, short_valid=True))
    assert len(learn.recorder.values)==1
    learn.fit(1); assert learn.recorder.values[-1][2]==direct(learn).mAP

def test_bad_callback_input():
    with pytest.raises(ValueError, match='every=0'): ReIDMetrics(every=0)
    with pytest.raises(ValueError, match='the validation loader holds 60'): toy().validate(ds_idx=0)
    def refused(words, change):
        learn = toy(); change(learn.dls); want = learn.model.emb.weight.clone()
        with pytest.raises(ValueError, match=words): learn.fit(1)
        assert torch.equal(want, learn.model.emb.weight) # before any training
    refused('holds 36 images, but dls has 11 queries and 24 gallery', lambda dls: setattr(dls, 'query_items', dls.query_items[1:]))
    refused('dls has no query_items', lambda dls: delattr(dls, 'query_items'))
    refused('None of the 12 queries has a match', lambda dls: setattr(dls, 'gallery_items', dls.gallery_items.assign(vid=99)))
    refused('None of the 12 queries has a match', lambda dls: (setattr(dls, 'query_items', dls.query_items.assign(cam=0)), setattr(dls, 'gallery_items', dls.gallery_items.assign(cam=0))))

def test_features_must_be_one_tensor():
    class Two(Toy):
        def forward(self, x): return super().forward(x) if self.training else (x, x)
    learn = toy(); learn.model = Two()
    with pytest.raises(TypeError, match='gave a tuple'): learn.validate()
    with pytest.raises(ValueError, match='the validation loader holds 60'): toy().validate(ds_idx=0)

def test_unknown_cameras_pass_the_check():
    learn = toy(); dls = learn.dls
    dls.query_items,dls.gallery_items = dls.query_items.assign(cam=-1),dls.gallery_items.assign(cam=-1)
    learn.fit(1); assert learn.re_id_metrics.result.n_valid==12

@pytest.mark.parametrize('ids', [['a','b'], [1.5,2.], [float('nan'),1.], [None,1]])
def test_ids_are_whole_numbers(ids):
    with pytest.raises(ValueError, match='q_ids are of type.*factorize'): rank_metrics(torch.rand(2,3), ids, [1,2,1])
    assert rank_metrics(torch.rand(2,3), [1.,2.], np.array([1,2,1], dtype=np.uint8)).n_valid==2
