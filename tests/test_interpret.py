"ReIDInterpretation against slow words of the same: AP by camera pair, first hits, nearest wrong vehicles"
import numpy as np, pandas as pd, pytest, torch
from hypothesis import given, settings, strategies as st
from matplotlib import pyplot as plt
from vehicle_reid.interpret import ReIDInterpretation
from vehicle_reid.metrics import evaluate_features

def problem(seed, Q=12, G=40, ids=5, cams=3, unknown=False, D=4):
    rng = np.random.default_rng(seed)
    def table(n, s): return pd.DataFrame(dict(path=[f'{s}{i}.jpg' for i in range(n)], vid=rng.integers(0, ids, n), cam=-1 if unknown else rng.integers(0, cams, n), paint=rng.choice(['red','blue'], n)))
    q,g = table(Q, 'q'),table(G, 'g')
    f = torch.tensor(rng.integers(-2, 3, (Q+G, D)), dtype=torch.float32) # ties
    return f[:Q],f[Q:],q,g

def words(q, g, qs, gs, i, cam=None):
    "(AP, rank of the first hit) of query i, images of its own camera left out; with `cam`, right images of other cameras, too"
    o,hits,rank = qs.iloc[i],[],0
    for j in np.argsort(-(g@q[i]).numpy(), kind='stable'):
        right = gs.vid[j]==o.vid
        if right and o.cam>=0 and gs.cam[j]==o.cam: continue
        if right and cam is not None and gs.cam[j]!=cam: continue
        rank += 1
        if right: hits.append(rank)
    return (np.mean([(n+1)/r for n,r in enumerate(hits)]),hits[0]) if hits else (np.nan,np.nan)

@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_the_table_says_what_words_say(seed, unknown):
    p = problem(seed, unknown=unknown); it = ReIDInterpretation(*p)
    want = np.array([words(*p, i) for i in range(len(p[2]))])
    np.testing.assert_allclose(it.table.ap, want[:,0]); np.testing.assert_array_equal(it.table['first'], want[:,1])
    assert list(it.table.paint)==list(p[2].paint) and np.nanmean(it.table.ap)==pytest.approx(it.metrics.mAP)

@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_camera_pairs_say_what_words_say(seed):
    p = problem(seed); t = ReIDInterpretation(*p).camera_pairs()
    for a in t.index:
        for b in t.columns:
            want = [words(*p, i, b)[0] for i in np.flatnonzero(p[2].cam==a)]
            np.testing.assert_allclose(t.loc[a,b], np.nanmean(want) if np.isfinite(want).any() else np.nan)

def test_the_nearest_wrong_vehicle():
    q,g = torch.tensor([[1.,0]]),torch.tensor([[.9,0],[.8,0],[.95,0],[.99,0]])
    it = ReIDInterpretation(q, g, pd.DataFrame(dict(path=['q'], vid=[1], cam=[0])), pd.DataFrame(dict(path=list('abcd'), vid=[1,2,3,1], cam=[1,1,2,0])))
    o = it.table.iloc[0] # d is junk, c (wrong) comes before a (right)
    assert (o.wrong,o.wrong_cam,o.wrong_path,o['first'],o.hits)==(3,2,'c',2,1) and o.margin==pytest.approx(-.05)
    assert it.most_confused().values.tolist()==[[1,3,1]]

def test_hardest_first_and_no_match_left_out():
    q,g,qs,gs = problem(3); qs.loc[0,'vid'] = 99
    it = ReIDInterpretation(q, g, qs, gs)
    loss,rows = it.top_losses()
    assert (np.diff(loss)<=0).all() and 0 not in rows and len(rows)==len(qs)-1
    np.testing.assert_allclose(loss, 1-it.metrics.ap[rows])
    assert it.top_losses(3, largest=False)[0].max()<=loss.min()+1e-12 or len(loss)>3
    assert it.rows('worst', 2)==rows[:2].tolist() and it.rows('best', 1)==[it.top_losses(1, False)[1][0]]

def test_rows_by_name_seed_and_list():
    it = ReIDInterpretation(*problem(0))
    assert it.rows('random', 5, seed=1)==it.rows('random', 5, seed=1)!=it.rows('random', 5, seed=2)
    assert it.rows('even', 3)==[0,6,11] and it.rows(['q4.jpg',2,-1])==[4,2,-1] and it.rows('worst', 100).__len__()==12
    with pytest.raises(ValueError, match="'middling' is none of"): it.rows('middling')
    with pytest.raises(ValueError, match='2 of the queries asked for are not there: nowhere.jpg, 12'): it.rows(['nowhere.jpg', 3, 12])

def test_by_a_column():
    it = ReIDInterpretation(*problem(1)); t = it.by('paint')
    for v in t.index: assert t.mAP[v]==pytest.approx(it.table.ap[it.table.paint==v].mean())
    assert t.mAP.is_monotonic_increasing and t.queries.sum()==it.table.ap.notna().sum()
    with pytest.raises(ValueError, match="no column 'colour'; they have path, vid, cam, paint"): it.by('colour')

def test_distances_are_those_of_pairs():
    q,g,qs,gs = problem(2); same,different = ReIDInterpretation(q, g, qs, gs).distances()
    junk = (qs.vid.values[:,None]==gs.vid.values) & (qs.cam.values[:,None]==gs.cam.values)
    right = (qs.vid.values[:,None]==gs.vid.values) & ~junk
    d = ((g[0]**2).sum()-q@g.T).numpy()
    np.testing.assert_allclose(np.sort(same), np.sort(d[right])); np.testing.assert_allclose(np.sort(different), np.sort(d[~right & ~junk]))

def test_features_and_tables_must_agree():
    q,g,qs,gs = problem(0)
    with pytest.raises(ValueError, match='g holds 39 features for a table of 40 rows'): ReIDInterpretation(q, g[1:], qs, gs)

def test_every_plot_is_a_figure(tmp_path):
    from PIL import Image
    q,g,qs,gs = problem(5, G=60)
    for t in (qs,gs):
        t['path'] = [str(tmp_path/p) for p in t.path]
        for p in t.path: Image.new('RGB', (20,12), (90,90,200)).save(p)
    it = ReIDInterpretation(q, g, qs, gs)
    for fig in (it.plot_rankings('random', 2, 3), it.plot_top_losses(2), it.plot_confused(2), it.plot_camera_pairs(), it.plot_distances(), it.plot_ap(), it.plot_cmc(5), it.plot_embedding(3, 4),
                it.plot_rankings([0], 1, 3, others=dict(b=it), name='a', figsize=(6,3))):
        assert isinstance(fig, plt.Figure); fig.canvas.draw(); plt.close(fig)
