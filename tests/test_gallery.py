"The gallery against brute force; what it keeps on disk, crash included; and what it refuses"
import os
from pathlib import Path
import numpy as np, pandas as pd, pytest, torch
from hypothesis import given, settings, strategies as st
from PIL import Image
from vehicle_reid.gallery import Gallery, item_table

def vectors(n, d=12, seed=0, norm2=2.5): return norm2**.5*torch.nn.functional.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)))
def paths(n): return [f'p/{i:04}.jpg' for i in range(n)]

def brute(q, g, k, weight):
    "Literal: every distance Σλ − q·g, sorted by (distance, row)"
    out = []
    for v in q.double().tolist():
        d = [(weight - sum(a*b for a,b in zip(v, w)), i) for i,w in enumerate(g.double().tolist())]
        out.append(sorted(d)[:k])
    return torch.tensor([[o[0] for o in r] for r in out]),torch.tensor([[o[1] for o in r] for r in out])

class ByName:
    "An `embed` that looks vectors up by path; remembers what it was asked"
    def __init__(self, features): self.table,self.asked = dict(zip(paths(len(features)), features)),[]
    def __call__(self, images): self.asked.append(images); return torch.stack([self.table[str(o)] for o in images])

@settings(max_examples=30)
@given(n=st.integers(1,40), nq=st.integers(1,7), k=st.integers(1,50), chunk=st.integers(1,90), seed=st.integers(0,99))
def test_nearest_is_brute_force_however_it_is_chunked(n, nq, k, chunk, seed):
    g,q = vectors(n, seed=seed),vectors(nq, seed=seed+1000)
    dist,rows = Gallery(g, paths(n), None).nearest(q, k, chunk)
    want,at = brute(q, g, k, 2.5)
    assert dist.shape==(nq,min(k,n)) and torch.equal(rows, at)
    assert torch.allclose(dist, want.float(), atol=1e-5)

def test_equal_vectors_stand_in_gallery_order_also_across_the_cut():
    g = vectors(5)[torch.randint(5, (3000,), generator=torch.Generator().manual_seed(1))]
    gal,q = Gallery(g, paths(3000), None),vectors(5)
    for k in (1,7,700,3000):
        rows = gal.nearest(q, k)[1]
        for v,r in zip(q, rows):
            s = (g.double()*v.double()).sum(1)
            assert r.tolist()==sorted(range(3000), key=lambda i: (-s[i].item(), i))[:k]
    assert torch.equal(gal.nearest(q, 50)[1], torch.cat([gal.nearest(q[i:i+1], 50)[1] for i in range(5)])), 'a query alone and among others'

def test_near_ties_are_decided_exactly():
    "Gaps that single-precision products do not resolve, but the stored vectors do"
    noise = torch.randn(4000, 512, generator=torch.Generator().manual_seed(2))
    g,q = vectors(1, 512)+2e-7*noise,vectors(3, 512, seed=7)+vectors(1, 512)
    s = q.double()@g.double().T
    assert torch.equal(Gallery(g, paths(4000), None).nearest(q, 20)[1], s.argsort(dim=1, descending=True, stable=True)[:,:20])
    assert not torch.equal((q@g.T).topk(20).indices.sort().values, s.topk(20).indices.sort().values), 'the test is no test'

@pytest.mark.parametrize('lam', [(1.,), (1.8,.7), (2.,.5,.31)])
def test_distance_is_what_is_missing_from_the_sum_of_weights(lam):
    f = [torch.nn.functional.normalize(torch.randn(6, 8, generator=torch.Generator().manual_seed(j))) for j in range(len(lam))]
    gal = Gallery(torch.cat([w**.5*o for w,o in zip(lam, f)], 1), paths(6), None)
    assert gal.weight==pytest.approx(sum(lam), abs=1e-5)
    dist,rows = gal.nearest(gal.features, 6)
    for i in range(6):
        for d,j in zip(dist[i], rows[i]): assert d.item()==pytest.approx(sum(w*(1-(o[i]@o[j]).item()) for w,o in zip(lam, f)), abs=1e-5)
    assert rows[:,0].tolist()==[*range(6)] and dist[:,0].abs().max()<1e-6

def test_weight_moves_the_zero_and_not_the_order():
    a,b = (Gallery(vectors(9), paths(9), None, weight=w).nearest(vectors(3, seed=5), 9) for w in (None,4.))
    assert torch.equal(a[1], b[1]) and torch.allclose(b[0]-a[0], torch.tensor(1.5), atol=1e-5)

def test_the_zero_is_the_longest_vector_of_the_gallery():
    gal = Gallery(torch.tensor([[1.,0],[0,3],[2,0]]), paths(3), None)
    dist,rows = gal.nearest([[1.,1]], 3)
    assert gal.weight==9 and rows.tolist()==[[1,2,0]] and dist.tolist()==[[6,7,8]]

# ---- search -------------------------------------------------------------------------------------------------------------------
def make(n=8):
    items = pd.DataFrame(dict(time=[f'0{i}:00' for i in range(n)], path=paths(n), vid=np.arange(n)//2, cam=np.arange(n)%3, plate=[f'00{i}' for i in range(n)]), index=range(100,100+n))
    f = vectors(n)
    return Gallery(f, items, ByName(f))

def test_search_is_a_table_with_all_columns():
    t = make().search([paths(8)[3],paths(8)[5]], k=4)
    assert list(t)==['query','rank','path','vid','cam','distance','time','plate'] and list(t.index)==[*range(8)]
    assert list(t['rank'])==[1,2,3,4]*2 and list(t['query'])==[paths(8)[3]]*4+[paths(8)[5]]*4
    assert t.path[0]==paths(8)[3] and t.path[4]==paths(8)[5] and t.distance[0]==t.distance[4]==0
    for r in t.itertuples():
        i = paths(8).index(r.path)
        assert (r.vid,r.cam,r.time,r.plate)==(i//2,i%3,f'0{i}:00',f'00{i}')

def test_search_takes_one_path_a_list_and_a_table():
    gal,p = make(),paths(8)[2]
    a = gal.search(p)
    for o in (Path(p), [p], (p,), pd.DataFrame({'path': [p]}), pd.Series([p])): pd.testing.assert_frame_equal(gal.search(o), a)
    assert len(a)==8, 'k beyond the gallery gives all of it'

def test_search_takes_images_in_memory():
    gal,img = make(),Image.new('RGB', (4,4))
    gal.embed = lambda images: vectors(len(images), seed=3)
    assert list(gal.search(img, 2)['query'])==[0,0] and list(gal.search([img,'x.jpg'], 1)['query'])==[0,'x.jpg']

def test_a_column_of_the_answers_own_name_gives_way():
    gal = Gallery(vectors(3), pd.DataFrame(dict(path=paths(3), rank=[9,9,9], distance=['far']*3)), ByName(vectors(3)))
    t = gal.search(paths(3)[0])
    assert list(t)==['query','rank','path','vid','cam','distance'] and list(t['rank'])==[1,2,3]

def test_items_of_any_kind_become_a_table():
    assert item_table([Path('a.jpg'),'b.jpg']).equals(pd.DataFrame(dict(path=['a.jpg','b.jpg'], vid=-1, cam=-1)))
    df = pd.DataFrame(dict(path=['a','b'], cam=[2.,np.nan]), index=[7,7])
    t = item_table(df)
    assert list(t.cam)==[2,-1] and list(t.vid)==[-1,-1] and t.cam.dtype.kind=='i' and list(t.index)==[0,1]
    assert list(df)==['path','cam'] and list(df.index)==[7,7], 'the table given is left as it was'

# ---- disk ---------------------------------------------------------------------------------------------------------------------
def test_save_and_load_keep_everything(tmp_path):
    gal = make()
    gal.items['when'],gal.items['share'],gal.items['note'] = 1.5,[.1+.2]*7+[None],'Straße 7, "links"\n'
    gal.weight = 2.7
    new = Gallery.load(gal.save(tmp_path/'a/b'), gal.embed)
    assert torch.equal(new.features, gal.features) and new.weight==gal.weight
    pd.testing.assert_frame_equal(new.items, gal.items, check_exact=True)
    pd.testing.assert_frame_equal(new.search(paths(8)), gal.search(paths(8)))
    assert not [p for p in (tmp_path/'a/b').iterdir() if p.suffix=='.part']

def test_time_stamps_are_saved_as_text(tmp_path):
    gal = make()
    gal.items['when'] = pd.Timestamp('2024-05-06 07:08')
    assert set(Gallery.load(gal.save(tmp_path), None).items.when)=={'2024-05-06 07:08:00'}

def test_saving_again_replaces_and_leaves_other_files_alone(tmp_path):
    (tmp_path/'mine.txt').write_text('x')
    make().save(tmp_path); make(5).save(tmp_path)
    assert len(Gallery.load(tmp_path, None))==5
    names = sorted(p.name for p in tmp_path.iterdir())
    assert len(names)==3 and names[0]=='features.safetensors' and names[2]=='mine.txt'

@pytest.mark.parametrize('crash', [0,1])
def test_a_crash_while_saving_leaves_the_old_gallery(tmp_path, monkeypatch, crash):
    make().save(tmp_path)
    left,real = [crash],os.replace
    def replace(a, b):
        if not left[0]: raise OSError('no space left')
        left[0] -= 1
        real(a, b)
    monkeypatch.setattr(os, 'replace', replace)
    with pytest.raises(OSError): make(5).save(tmp_path)
    monkeypatch.undo()
    assert len(Gallery.load(tmp_path, None))==8
    make(5).save(tmp_path)
    assert len(Gallery.load(tmp_path, None))==5 and len(list(tmp_path.glob('items-*.jsonl')))==1

def test_load_says_what_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match='no gallery was saved there'): Gallery.load(tmp_path, None)
    make().save(tmp_path)
    next(tmp_path.glob('items-*')).unlink()
    with pytest.raises(FileNotFoundError, match=r'lacks items-\w+\.jsonl'): Gallery.load(tmp_path, None)

# ---- errors -------------------------------------------------------------------------------------------------------------------
def bad(f): f = f.clone(); f[1,2] = float('nan'); return f

@pytest.mark.parametrize('features,items,says', [
    (vectors(3), [], 'nothing to search'), (vectors(3), paths(4), r'\(3, 12\).*4 rows'), (vectors(3)[0], paths(3), r'\(12,\)'),
    (bad(vectors(3)), paths(3), r'1 of 3.*row 1 \(p/0001.jpg\)'), (vectors(3), pd.DataFrame(dict(file=paths(3))), 'no `path`'),
    (vectors(2), [Image.new('RGB', (2,2))]*2, 'no path')])
def test_what_does_not_fit_is_refused(features, items, says):
    with pytest.raises(ValueError, match=says): Gallery(features, items, None)

@pytest.mark.parametrize('q,k,says', [
    (vectors(2, 7), 3, r'\(2, 7\).*\(8, 12\).*same network'), (vectors(2)[0], 3, 'same network'), (vectors(2)[:0], 3, 'no query'),
    (bad(vectors(2)), 3, 'query 1'), (vectors(2), 0, 'k=0')])
def test_bad_queries_are_refused(q, k, says):
    with pytest.raises(ValueError, match=says): make().nearest(q, k)

def test_no_query_is_refused_before_the_network_runs():
    gal = make()
    for o in ([], pd.DataFrame({'path': []})):
        with pytest.raises(ValueError, match='no query'): gal.search(o)
    assert not gal.embed.asked

# ---- the learner's verb -------------------------------------------------------------------------------------------------------
@pytest.fixture(scope='module')
def learn(tmp_path_factory):
    from vehicle_reid.synth import synth_veri
    from vehicle_reid.data import ReIDDataLoaders
    from vehicle_reid.learner import reid_learner
    torch.manual_seed(0)
    path = synth_veri(tmp_path_factory.mktemp('synth')/'s', n_ids=6, n_test=3, n_workers=1)
    return reid_learner(ReIDDataLoaders.from_veri(path, size=64, p=2, k=2, num_workers=0), 'resnet18', pretrained=False, uniform=True, feat_dim=32)

@pytest.mark.parametrize('teachers', [None,True])
def test_the_learner_finds_each_image_first(learn, teachers):
    g = learn.dls.gallery_items
    gal = learn.gallery(g, teachers)
    assert gal.weight==pytest.approx(learn.model.weights[:3 if teachers else 2].sum().item(), abs=1e-4)
    t = gal.search(list(g.path), k=1)
    assert (t.distance<1e-5).all() and list(t.path)==list(g.path) and list(t.vid)==list(g.vid)

def test_the_learners_gallery_is_of_any_images(learn, tmp_path):
    crop = tmp_path/'crop.jpg'
    Image.open(learn.dls.query_items.path[0]).resize((50,40)).save(crop)
    gal = learn.gallery(list(learn.dls.gallery_items.path))
    assert set(gal.items.vid)=={-1} and gal.search(str(crop), k=1).path[0] in set(gal.items.path)
    assert len(learn.gallery(str(crop)).search(crop))==1

def test_the_learners_gallery_and_evaluate_agree(learn):
    q,g = learn.dls.query_items,learn.dls.gallery_items
    t = learn.gallery(g).search(q, k=len(g))
    first = []
    for p,o in t.groupby('query', sort=False):
        me = q[q.path==p].iloc[0]
        o = o[~((o.vid==me.vid) & (o.cam==me.cam))]
        if (o.vid==me.vid).any(): first.append(o.vid.iloc[0]==me.vid)
    assert np.mean(first)==pytest.approx(learn.evaluate()['CMC@1'])

def test_errors_of_the_learners_gallery(learn, tmp_path):
    with pytest.raises(FileNotFoundError, match='nowhere.jpg'): learn.gallery([str(tmp_path/'nowhere.jpg')])
    with pytest.raises(ValueError, match='nothing to search'): learn.gallery([])
    gal = learn.gallery(learn.dls.gallery_items[:3])
    with pytest.raises(FileNotFoundError, match='nowhere.jpg'): gal.search(tmp_path/'nowhere.jpg')
    gal.embed = lambda x: learn.embed(x, teachers=True)
    with pytest.raises(ValueError, match='same network'): gal.search(learn.dls.query_items[:1])

def test_a_broken_network_is_no_unreadable_image(tmp_path):
    "NaN that the network made is an error, of the evaluation and of the gallery; only NaN for images that loaders replace is left out"
    from vehicle_reid.all import ReIDDataLoaders, reid_learner, synth_veri
    dls = ReIDDataLoaders.from_veri(synth_veri(tmp_path/'v', n_ids=6, n_test=2, n_cams=3, n_workers=1), size=32, p=2, k=2, num_workers=0)
    learn = reid_learner(dls, 'resnet10t', pretrained=False, feat_dim=16, uniform=True, path=tmp_path)
    for p in learn.model.parameters(): p.data.fill_(float('nan'))
    with pytest.raises(ValueError): learn.evaluate()
    for kw in ({}, dict(folder=tmp_path/'g', piece=2)):
        with pytest.raises(ValueError, match='NaN'): learn.gallery(dls.gallery_items, **kw)
