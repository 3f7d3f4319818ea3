"k-reciprocal re-ranking against a slow, dense, literal version"
import os, subprocess, sys
import numpy as np, pytest, torch
from hypothesis import given, settings, strategies as st
from vehicle_reid import rerank
from vehicle_reid.rerank import k_reciprocal_rerank, k_reciprocal_rerank_dist

def dense(d, Q, k1, k2, lam):
    "The definition, image by image, with full matrices; d is (N,N)"
    N = len(d)
    d = (d/d.max(0)).T
    rank = np.argsort(d, axis=1, kind='stable')
    def R(p, k): return [g for g in rank[p,:k+1] if p in rank[g,:k+1]]
    V = np.zeros((N,N))
    for p in range(N):
        near = R(p, k1); star = set(near)
        for c in near:
            circle = R(c, int(np.around(k1/2)))
            if len(set(circle)&set(near)) > 2/3*len(circle): star |= set(circle)
        star = sorted(star)
        V[p,star] = np.exp(-d[p,star])/np.exp(-d[p,star]).sum()
    if k2!=1: V = np.stack([V[rank[p,:k2]].mean(0) for p in range(N)])
    J = np.array([[1 - np.minimum(V[p],V[g]).sum()/np.maximum(V[p],V[g]).sum() for g in range(Q,N)] for p in range(Q)])
    return (1-lam)*J + lam*d[:Q,Q:]

def sq(x): return ((x[:,None]-x)**2).sum(-1)
def clustered(seed, Q=8, G=40, D=6, n_ids=7):
    r = np.random.default_rng(seed); c = r.normal(size=(n_ids,D))
    return tuple(c[r.integers(0, n_ids, n)] + .5*r.normal(size=(n,D)) for n in (Q,G))

@pytest.mark.parametrize('k1,k2,lam', [(20,6,.3), (7,3,.3), (5,1,.5), (6,2,0), (1,1,.3), (10,15,1), (3,2,.3)])
@pytest.mark.parametrize('seed', [0,1])
def test_equals_dense(seed, k1, k2, lam):
    q,g = clustered(seed); want = dense(sq(np.r_[q,g]), len(q), k1, k2, lam)
    np.testing.assert_allclose(k_reciprocal_rerank(q, g, k1, k2, lam), want, atol=1e-12)
    np.testing.assert_allclose(k_reciprocal_rerank_dist(sq(np.r_[q,g]), len(q), k1, k2, lam), want, atol=1e-12)

@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 8), st.integers(2, 40))
def test_dist_equals_dense_with_ties_and_without_symmetry(seed, k1, k2, N):
    r = np.random.default_rng(seed); d = r.integers(1, 6, (N,N)).astype(float); np.fill_diagonal(d, 0); Q = int(r.integers(1, N))
    np.testing.assert_allclose(k_reciprocal_rerank_dist(d, Q, k1, k2), dense(d, Q, k1, k2, .3), atol=1e-12)

@pytest.mark.parametrize('Q,G', [(1,1), (1,2), (3,4), (2,19)])
def test_few_images(Q, G):
    q,g = clustered(0, Q, G)
    np.testing.assert_allclose(k_reciprocal_rerank(q, g), dense(sq(np.r_[q,g]), Q, 20, 6, .3), atol=1e-12)

@settings(max_examples=15)
@given(st.integers(0, 10**6))
def test_permuted_gallery_permutes_columns(seed):
    q,g = clustered(seed); p = np.random.default_rng(seed).permutation(len(g)); o = np.random.default_rng(seed+1).permutation(len(q))
    np.testing.assert_allclose(k_reciprocal_rerank(q[o], g[p], 8, 3), k_reciprocal_rerank(q, g, 8, 3)[o][:,p], atol=1e-12)

@settings(max_examples=15)
@given(st.integers(0, 10**6), st.sampled_from([1e-3, 7., 1e4]))
def test_scale_shift_and_rotation_change_nothing(seed, scale):
    q,g = clustered(seed); want = k_reciprocal_rerank(q, g, 8, 3)
    U = np.linalg.qr(np.random.default_rng(seed).normal(size=(6,6)))[0]
    for f in (lambda x: scale*x, lambda x: x+3, lambda x: x@U): np.testing.assert_allclose(k_reciprocal_rerank(f(q), f(g), 8, 3), want, atol=1e-8)

def test_limits():
    q,g = clustered(3); d = sq(np.r_[q,g]); d = d/d.max(1, keepdims=True)
    np.testing.assert_allclose(k_reciprocal_rerank(q, g, lambda_value=1), d[:8,8:], atol=1e-12) # the original distance, row by row
    out = k_reciprocal_rerank(q, g); assert out.shape==(8,40) and out.min()>=0 and out.max()<=1
    np.testing.assert_allclose(k_reciprocal_rerank(np.zeros((2,3)), np.zeros((30,3))), dense(np.zeros((32,32))+1e-300, 2, 20, 6, 0), atol=1e-9) # all images alike

def test_kind_follows_input():
    q,g = clustered(4); want = k_reciprocal_rerank(q, g)
    for dtype,tol in ((torch.float64,1e-12), (torch.float32,2e-4)):
        out = k_reciprocal_rerank(torch.tensor(q, dtype=dtype, requires_grad=True), torch.tensor(g, dtype=dtype))
        assert isinstance(out, torch.Tensor) and out.dtype==dtype and not out.requires_grad; np.testing.assert_allclose(out, want, atol=tol)
    out = k_reciprocal_rerank(q.astype('f'), g.astype('f')); assert isinstance(out, np.ndarray) and out.dtype==np.float32
    assert k_reciprocal_rerank(torch.tensor(q).half(), torch.tensor(g).half()).dtype==torch.float32
    d = k_reciprocal_rerank_dist(torch.tensor(sq(np.r_[q,g])), 8); assert isinstance(d, torch.Tensor); np.testing.assert_allclose(d, want, atol=1e-12)

@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')
def test_cuda_equals_cpu():
    q,g = map(torch.tensor, clustered(5, 30, 300)); out = k_reciprocal_rerank(q.cuda(), g.cuda())
    assert out.is_cuda; np.testing.assert_allclose(out.cpu(), k_reciprocal_rerank(q, g), atol=1e-9)

def test_rounding_makes_no_negative_distance(monkeypatch):
    seen = []; real = rerank._neighbours
    monkeypatch.setattr(rerank, '_neighbours', lambda rows,*a: seen.append(rows) or real(rows, *a))
    q,g = (o.astype('f') for o in clustered(7, 20, 200, 64)); g[:20] = q + 1e-4
    k_reciprocal_rerank(q, g); d = seen[0](slice(30, 90))
    assert d.min()>=0 and (d[torch.arange(60),torch.arange(30, 90)]==0).all() and (seen[0](slice(0, 20))[:,20:40]>=0).all()

def test_common_offset_costs_no_precision():
    q,g = (o.astype('f') for o in clustered(8, 20, 200))
    off = 2.**9 # exact in float32 to 2^-15
    q,g = (np.round(o*2**10)/2**10 for o in (q,g))
    np.testing.assert_allclose(k_reciprocal_rerank(q+off, g+off), k_reciprocal_rerank(q, g), atol=1e-4)

def test_nearest_is_a_stable_sort():
    d = torch.randint(0, 4, (50,30)).float()
    for k in (1,5,30,99): assert torch.equal(rerank._nearest(d, k), d.argsort(dim=1, stable=True)[:,:k])

def test_two_thirds_are_not_enough():
    "A circle of three of which two are in stays out; integers decide, not 2/3 in floats"
    for n in range(1, 200):
        for m in range(n+1): assert (3*m>2*n)==(m > 2/3*n)
    q,g = clustered(6, 8, 40); E = rerank._expanded(sq(np.r_[q,g]).argsort(1, kind='stable')[:,:9], 8)
    assert E.nnz==len(set(zip(E.row, E.col))) and (E.data>0).all()

def test_memory_is_bounded():
    code = """
import resource, numpy as np
from vehicle_reid.rerank import k_reciprocal_rerank
r = np.random.default_rng(0); x = r.normal(size=(10000,8)).astype('f')
k_reciprocal_rerank(x[:20], x[20:300])
a = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
k_reciprocal_rerank(x[:50], x[50:])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss-a)/1024)"""
    mib = float(subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True, check=True, env={**os.environ, 'OMP_NUM_THREADS':'1'}).stdout.split()[-1])
    assert mib < 300, mib # one full float32 matrix alone is 381 MiB

@pytest.mark.parametrize('change,words', [
    (dict(g=np.ones((4,3))), 'q has 2 features an image and g has 3'), (dict(q=np.ones(2)), r'q has shape \(2,\)'), (dict(g=np.ones((0,2))), 'g has shape'),
    (dict(k1=0), 'k1=0'), (dict(k2=0), 'k2=0'), (dict(lambda_value=1.1), r'lambda_value=1.1'), (dict(q=np.array([[1,np.nan]])), 'q holds nan at row 0, column 1')])
def test_bad_input(change, words):
    with pytest.raises(ValueError, match=words): k_reciprocal_rerank(**{**dict(q=np.ones((3,2)), g=np.ones((4,2))), **change})

def test_bad_matrix():
    with pytest.raises(ValueError, match='a square matrix'): k_reciprocal_rerank_dist(np.ones((3,4)), 1)
    for n in (0,3):
        with pytest.raises(ValueError, match='at least one query and one gallery'): k_reciprocal_rerank_dist(np.ones((3,3)), n)

def test_numbers_that_are_no_distances():
    x = np.random.default_rng(0).normal(size=(12,4)).astype(np.float32)
    with pytest.raises(ValueError, match='beyond what their type can hold'): k_reciprocal_rerank(x[:3]*1e20, x[3:]*1e20)
    with pytest.raises(ValueError, match='negative numbers'): k_reciprocal_rerank_dist(-np.ones((12,12)), 3)
    assert np.array_equal(k_reciprocal_rerank(x[:3,::-1], x[3:,::-1]), k_reciprocal_rerank(x[:3,::-1].copy(), x[3:,::-1].copy()))

def test_long_work_shows_how_far_it_is(capsys):
    x = np.random.default_rng(0).random((10_000,4), dtype='f')
    k_reciprocal_rerank(x[:50], x[50:])
    assert capsys.readouterr().out.count('100.00% [50/50')==1 # the second pass counts queries, few as they are
    k_reciprocal_rerank(x[:50], x[50:1000])
    assert not capsys.readouterr().out
