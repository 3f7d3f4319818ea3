"CMC, mAP, the VehicleID draw, re-ranking and the fused distance against loops over single images: random shapes, four precisions, one image, ties, permutations, scales"
import math
import numpy as np, pandas as pd, pytest, torch
from hypothesis import assume, example, given, settings, strategies as st
from vehicle_reid.metrics import evaluate_features, rank_metrics, vehicleid_metrics
from vehicle_reid.pmnet import Baseline, PMNet, fuse
from vehicle_reid.rerank import k_reciprocal_rerank, k_reciprocal_rerank_dist

dtypes = torch.float64,torch.float32,torch.float16,torch.bfloat16
seeds = st.integers(0,10**6)
def rand(*shape, seed=0, dtype=torch.float64): return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)

# --- CMC, mAP
def literal_metrics(dist, qi, gi, qc=None, gc=None, ks=(1,2,5)):
    "{mAP, CMC@k, mINP} and AP of each query; None if no query has a match"
    ap,rows = [],[]
    for i in range(len(qi)):
        hits,rank,last,first,total = 0,0,0,0,0.
        for j in sorted(range(len(gi)), key=lambda j: dist[i][j]): # a stable sort: ties stand in gallery order
            if qc is not None and qi[i]==gi[j] and qc[i]==gc[j]!=-1: continue
            rank += 1
            if qi[i]!=gi[j]: continue
            hits += 1; total += hits/rank; last = rank; first = first or rank
        ap.append(total/hits if hits else math.nan)
        if hits: rows.append([total/hits, *(float(first<=k) for k in ks), hits/last])
    return ([sum(o)/len(rows) for o in zip(*rows)], ap) if rows else None

def case(seed, Q, G, ids=4):
    r = np.random.default_rng(seed); return [r.integers(0, ids, n).tolist() for n in (Q,G)] + [r.integers(-1, 2, n).tolist() for n in (Q,G)]

def same(m, want):
    np.testing.assert_allclose(m.series().values, want[0], atol=1e-12); np.testing.assert_allclose(m.ap, want[1], atol=1e-12)

sizes = dict(Q=st.integers(1,6), G=st.integers(1,12), seed=seeds)

@settings(max_examples=50)
@given(**sizes, cams=st.booleans(), dtype=st.sampled_from(dtypes), levels=st.sampled_from([1,3,400]))
def test_rank_metrics(Q, G, seed, cams, dtype, levels):
    "One level: all distances alike"
    lab,d = case(seed, Q, G),(rand(Q,G, seed=seed).abs()*levels).floor().to(dtype)
    if not cams: lab = lab[:2]
    want = literal_metrics(d.double().tolist(), *lab); assume(want)
    same(rank_metrics(d, *lab, ks=(1,2,5)), want)
    if dtype!=torch.bfloat16: same(rank_metrics(d.numpy(), *map(np.array, lab), ks=(1,2,5)), want)

@settings(max_examples=40)
@given(**sizes, D=st.integers(1,5), dtype=st.sampled_from(dtypes), chunk=st.integers(1,7))
@example(Q=1, G=1, seed=3, D=1, dtype=torch.float16, chunk=1)
def test_evaluate_features(Q, G, seed, D, dtype, chunk):
    "Small whole numbers: no precision rounds a product, ties abound"
    q,g = (rand(n, D, seed=seed+n).mul(2).round().clamp(-4, 4).to(dtype) for n in (Q,G+9)); g = g[:G]
    lab,d = case(seed, Q, G, 2),[[-sum(a*b for a,b in zip(u, v)) for v in g.tolist()] for u in q.tolist()]
    want = literal_metrics(d, *lab); assume(want)
    same(evaluate_features(q, g, *lab, ks=(1,2,5), chunk=chunk), want)

@settings(max_examples=25)
@given(**sizes)
def test_permuted_queries_and_gallery_permute_ap(Q, G, seed):
    lab,q,g = [np.array(o) for o in case(seed, Q, G, 2)],rand(Q,4, seed=seed),rand(G,4, seed=seed+1)
    a,b = (np.random.default_rng(seed+i).permutation(n) for i,n in enumerate((Q,G))); assume(literal_metrics((-q@g.T).tolist(), *lab))
    m,n = evaluate_features(q, g, *lab),evaluate_features(q[a], g[b], lab[0][a], lab[1][b], lab[2][a], lab[3][b])
    np.testing.assert_array_equal(m.ap[a], n.ap); np.testing.assert_allclose(m.series(), n.series(), atol=1e-12)

@settings(max_examples=25)
@given(**sizes, scale=st.sampled_from([2.**-20, .3, 2.**20]))
def test_scales_leave_the_ranking(Q, G, seed, scale):
    "All features at once, or each query by its own; unit vectors rank by Euclidean distance, too"
    lab,q,g = case(seed, Q, G, 2),rand(Q,4, seed=seed),rand(G,4, seed=seed+1); d = -q@g.T; assume(literal_metrics(d.tolist(), *lab))
    want = evaluate_features(q, g, *lab).ap
    np.testing.assert_array_equal(evaluate_features(q*scale, g*scale, *lab).ap, want)
    np.testing.assert_array_equal(evaluate_features(q*rand(Q,1, seed=seed+2).exp(), g, *lab).ap, want)
    u,v = (o/o.norm(dim=1, keepdim=True) for o in (q,g))
    np.testing.assert_array_equal(evaluate_features(u, v, *lab).ap, rank_metrics(torch.cdist(u, v, compute_mode='donot_use_mm_for_euclid_dist'), *lab).ap)

@pytest.mark.parametrize('dtype', dtypes)
@pytest.mark.parametrize('seed,n_trials', [(0,4), (3,2)])
def test_vehicleid(seed, n_trials, dtype):
    "The first image of each identity in a random order is the gallery, all others are queries"
    ids,f,rng,rows = [3,1,1,4,3,2,2,1,4,4,3,9],rand(12,3, seed=seed, dtype=dtype),np.random.default_rng(seed),[]
    for _ in range(n_trials):
        g = {}
        for i in rng.permutation(12): g.setdefault(ids[i], i)
        g = sorted(g.values()); q = [i for i in range(12) if i not in g]
        rows.append(literal_metrics((-f[q].double()@f[g].double().T).tolist(), [ids[i] for i in q], [ids[i] for i in g])[0])
    out = vehicleid_metrics(f, ids, n_trials, seed, ks=(1,2,5)); mean = [sum(o)/n_trials for o in zip(*rows)]
    np.testing.assert_allclose(out['mean'], mean, atol=1e-12)
    np.testing.assert_allclose(out['std'], [math.sqrt(sum((a-m)**2 for a in o)/(n_trials-1)) for o,m in zip(zip(*rows), mean)], atol=1e-12)

# --- k-reciprocal re-ranking: sets and dictionaries, in the words of Zhong et al., sec. 3
def literal_rerank(d, Q, k1, k2, lam):
    N = len(d); d = [[o/(max(row) or 1) for o in row] for row in d]
    rank = [sorted(range(N), key=lambda j: row[j]) for row in d]
    def R(p, k): return {i for i in rank[p][:k+1] if p in rank[i][:k+1]}
    V = []
    for p in range(N):
        star = near = R(p, k1)
        for i in near:
            half = R(i, round(k1/2))
            if 3*len(near&half)>2*len(half): star = star|half
        w = {i: math.exp(-d[p][i]) for i in star}; V.append({i: o/sum(w.values()) for i,o in w.items()})
    mine = [rank[p][:k2] if k2>1 else [p] for p in range(N)]
    V = [[sum(V[i].get(j, 0) for i in o)/len(o) for j in range(N)] for o in mine]
    return [[(1-lam)*(1 - sum(map(min, V[p], V[g]))/sum(map(max, V[p], V[g]))) + lam*d[p][g] for g in range(Q,N)] for p in range(Q)]

def squares(x): return [[sum((a-b)**2 for a,b in zip(u, v)) for v in x] for u in x]

@settings(max_examples=40)
@given(Q=st.integers(1,5), G=st.integers(1,12), D=st.integers(1,4), k1=st.integers(1,10), k2=st.integers(1,5), lam=st.sampled_from([0.,.3,1.]), dtype=st.sampled_from(dtypes), seed=seeds)
@example(Q=1, G=1, D=1, k1=20, k2=6, lam=.3, dtype=torch.float16, seed=0)
def test_rerank(Q, G, D, k1, k2, lam, dtype, seed):
    x = rand(Q+G, D, seed=seed, dtype=dtype); d = squares(x.double().tolist())
    gaps = [b-a for row in d for a,b in zip(sorted(row), sorted(row)[1:])]; assume(min(gaps)>1e-4) # neighbours that float32 tells apart
    want,out = literal_rerank(d, Q, k1, k2, lam),k_reciprocal_rerank(x[:Q], x[Q:], k1, k2, lam)
    assert out.dtype==(torch.float64 if dtype==torch.float64 else torch.float32)
    np.testing.assert_allclose(out, want, atol=1e-10 if dtype==torch.float64 else 1e-4)
    np.testing.assert_allclose(k_reciprocal_rerank_dist(np.array(d), Q, k1, k2, lam), want, atol=1e-12)

@pytest.mark.parametrize('dtype', dtypes)
def test_rerank_of_images_all_alike(dtype):
    np.testing.assert_allclose(k_reciprocal_rerank(torch.full((2,3), 3., dtype=dtype), torch.full((6,3), 3., dtype=dtype), 3, 2), literal_rerank([[0.]*8]*8, 2, 3, 2, .3), atol=1e-6)

@pytest.mark.parametrize('dtype', dtypes)
def test_permuted_and_scaled_images_are_reranked_alike(dtype):
    x = rand(20,5, dtype=dtype); q,g = x[:6],x[6:]; want = k_reciprocal_rerank(q, g, 5, 2); a,b = torch.randperm(6),torch.randperm(14)
    torch.testing.assert_close(k_reciprocal_rerank(q[a], g[b], 5, 2), want[a][:,b], atol=1e-4, rtol=0)
    torch.testing.assert_close(k_reciprocal_rerank(q*8, g*8, 5, 2), want, atol=1e-4, rtol=0)

# --- the fused distance of one vector (Sec. IV-B2)
def literal_fused(Q, G, lam): return [[sum(l*(1 - sum(a*b for a,b in zip(u[i], v[j]))/math.sqrt(sum(a*a for a in u[i])*sum(b*b for b in v[j]))) for l,u,v in zip(lam, Q, G)) for j in range(len(G[0]))] for i in range(len(Q[0]))]

@pytest.mark.parametrize('dtype', dtypes)
@pytest.mark.parametrize('dims', [(3,4,5), (2,), (1,1)])
def test_fused_distance(dims, dtype):
    lam = [1.81,2.21,2.25][:len(dims)]; Q,G = ([rand(n, d, seed=n+d, dtype=dtype) for d in dims] for n in (3,7))
    want = torch.tensor(literal_fused([o.tolist() for o in Q], [o.tolist() for o in G], lam)); w = torch.tensor(lam)
    def dist(s, t): return sum(lam)-fuse([o*s for o in Q], w)@fuse([o*t for o in G], w).T
    torch.testing.assert_close(dist(1, 1).double(), want.double(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(dist(4, .5), dist(1, 1)) # lengths do not count

def some_parts(b, k, seed): lo = (rand(b,k,2, seed=seed).abs()*12).long().clamp(max=40); return torch.cat([lo, lo+24], -1), (rand(b,k,64,64, seed=seed)>-1).float()

@pytest.mark.parametrize('kw', [dict(), dict(n_parts=1), dict(teachers=False), dict(global_head=False)])
def test_embeddings_rank_by_the_weighted_cosines_of_normalised_features(kw):
    torch.manual_seed(0); net = PMNet(5, 'resnet10t', feat_dim=16, pretrained=False, **kw).eval(); n = len(net.heads)
    for bn in (o.bn for o in net.necks.values()): bn.running_mean.normal_(); bn.running_var.uniform_(.5, 2)
    net.log_var.data = torch.tensor([-.6,.3,-.8])[:n]; x,k = rand(5,3,64,64, dtype=torch.float32),net.n_parts; parts = some_parts(5, k, 1)
    for given,heads in ((None, [h for h in net.heads if h!='T']), (parts, net.heads)):
        with torch.no_grad(): e,feats = net(x, given),net.features(x, given)[0]
        necked = [((feats[h]-net.necks[h].bn.running_mean)/(net.necks[h].bn.running_var+1e-5).sqrt()).tolist() for h in heads]
        lam = [math.exp(-s) for h,s in zip(net.heads, net.log_var.tolist()) if h in heads]
        np.testing.assert_allclose(sum(lam)-e@e.T, literal_fused(necked, necked, lam), atol=1e-4)

@pytest.mark.parametrize('net', [lambda: PMNet(5, 'resnet10t', feat_dim=16, pretrained=False), lambda: PMNet(5, 'resnet10t', feat_dim=16, share=False, n_parts=2, pretrained=False), lambda: Baseline(5, 'resnet10t', pretrained=False)])
def test_embeddings_of_a_batch_are_strangers(net):
    torch.manual_seed(0); net = net().eval(); x,p = rand(4,3,64,64, dtype=torch.float32),[2,0,3,1]
    for b,m in [some_parts(4, max(net.n_parts, 1), 2)]*bool(net.n_parts) + [(None,None)]:
        def embed(i): return net(x[i], None if b is None else (b[i],m[i])).detach()
        whole = embed([0,1,2,3]); assert (whole[1:]-whole[:1]).abs().amax(1).min()>1e-3
        torch.testing.assert_close(embed(p), whole[p], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(torch.cat([embed([i]) for i in range(4)]), whole, atol=1e-5, rtol=1e-5)

@pytest.mark.parametrize('levels', [1,2,5,65,None])
@pytest.mark.parametrize('n_ids', [1,3,40])
def test_many_hits_and_many_ties(levels, n_ids):
    "As many hits as a collapsed network or codes of a few bits give: ranks are those of a stable sort"
    from vehicle_reid.metrics import rank_metrics
    rng = np.random.default_rng(0)
    d = rng.random((6,900)).astype(np.float32) if levels is None else rng.integers(0, levels, (6,900)).astype(np.float32)
    q,g = rng.integers(0, n_ids, 6),np.r_[np.arange(n_ids), rng.integers(0, n_ids, 900-n_ids)]
    got = rank_metrics(d, q, g)
    for i in range(6):
        r = np.flatnonzero(g[d[i].argsort(kind='stable')]==q[i])+1
        assert abs(got.ap[i]-(np.arange(1, len(r)+1)/r).mean())<1e-12

def test_what_cannot_be_ranked_is_said():
    from vehicle_reid.metrics import evaluate_features, rank_metrics, vehicleid_metrics
    x = np.random.default_rng(0).random((4,3))
    for bad,what in ((x.tolist(),'is a list'), (pd.DataFrame(x),'is a DataFrame'), (x.astype(complex),'complex128')):
        with pytest.raises(TypeError, match=what): rank_metrics(bad, np.arange(4), np.arange(3))
    with pytest.raises(ValueError, match='ks=5'): rank_metrics(x, np.arange(4), np.arange(3), ks=5)
    with pytest.raises(ValueError, match='some of them missing'): vehicleid_metrics(x, [0,0,float('nan'),1])
    with pytest.raises(ValueError, match=r'shape \(4, 1\)'): vehicleid_metrics(x, np.zeros((4,1)))
    with pytest.raises(ValueError, match='n_trials=0'): vehicleid_metrics(x, [0,0,1,1], n_trials=0)
    with pytest.raises(ValueError, match='ranks of at least 1'): vehicleid_metrics(x, [0,0,1,1], ks=(0,))
    with pytest.raises(ValueError, match='move one of them'): evaluate_features(torch.rand(2,3, device='meta'), torch.rand(2,3), [0,1], [0,1])
