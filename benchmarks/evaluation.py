"Ranking metrics from features: `evaluate_features` and `vehicleid_metrics` beside FastReID, Open Metric Learning and PyTorch Metric Learning"
import sys
import numpy as np, torch
from _bench import PEERS, Case, fastreid_cython, main, namespace, once, peer
from vehicle_reid.metrics import evaluate_features, vehicleid_metrics

def features(ids, d, rng, noise=2.5):
    "Unit vectors around a centre for each identity"
    x = rng.standard_normal((ids.max()+1, d), dtype='f')[ids] + noise*rng.standard_normal((len(ids), d), dtype='f')
    return x/np.linalg.norm(x, axis=1, keepdims=True)

def veri(scale, Q=None, G=None, n_ids=200, n_cams=20):
    "As many queries, gallery images, identities and cameras as VeRi-776 has"
    q,g = dict(full=(1678,11579), quick=(1678,11579), tiny=(50,300))[scale] if Q is None else (Q,G)
    if scale=='tiny': n_ids = 8 # everyone has a match: what to do without one, the libraries do not agree on
    rng = np.random.default_rng(0)
    ids,cams = rng.integers(0, n_ids, q+g),rng.integers(0, n_cams, q+g)
    x = features(ids, 512, rng)
    return x[:q],x[q:],ids[:q],ids[q:],cams[:q],cams[q:]

def ours(data):
    m = evaluate_features(*data)
    return m.mAP, m.cmc[1], m.mINP

cy = fastreid_cython()
py = peer('fastreid/evaluation/rank.py', 'fastreid_rank')
def cosine(q, g): return 1 - torch.mm(torch.from_numpy(q), torch.from_numpy(g).t()).numpy() # as FastReID's build_dist
def fastreid(data):
    cmc,ap,inp = cy(cosine(*data[:2]), *data[2:], 50, False)
    return np.mean(ap), cmc[0], np.mean(inp)
def fastreid_python(data):
    cmc,ap,inp = py.eval_market1501(cosine(*data[:2]), *data[2:], 50)
    return np.mean(ap), cmc[0], np.mean(inp)

def oml():
    "Open Metric Learning: all of the gallery retrieved, then its metrics; identity and camera together are a sequence to leave out"
    if not (PEERS/'oml').exists(): return None
    sys.path.append(str(PEERS))
    for o in ('oml','oml.utils','oml.functional'): namespace(o)
    from oml.functional.knn import batched_knn_qg
    from oml.functional.metrics import calc_retrieval_metrics
    def f(data):
        q,g,qi,gi,qc,gc = map(torch.from_numpy, data)
        _,found,true = batched_knn_qg(q, g, len(g), labels_query=qi, labels_gallery=gi, sequence_ids_query=qi*1000+qc, sequence_ids_gallery=gi*1000+gc)
        m = calc_retrieval_metrics(found, true, cmc_top_k=(1,), precision_top_k=(), map_top_k=(len(g),), verbose=False)
        return float(m['map'][len(g)]), float(m['cmc'][1])
    return f

def pml():
    "PyTorch Metric Learning has no rule for cameras; its nearest neighbours here by torch, as its own search asks for faiss"
    if not (PEERS/'pytorch_metric_learning').exists(): return None
    sys.path.append(str(PEERS))
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
    def nearest(q, k, g, same):
        d,i = (1 - q@g.T).topk(k, largest=False)
        return d,i
    def f(data):
        q,g,qi,gi = map(torch.from_numpy, data[:4])
        m = AccuracyCalculator(include=('mean_average_precision','precision_at_1'), k=len(g), knn_func=nearest, device=torch.device('cpu')).get_accuracy(q, qi, g, gi)
        return m['mean_average_precision'], m['precision_at_1']
    return f
def without_cameras(data): return ours(data[:4])

def agree(results):
    a = results['ours']
    for n,b in results.items():
        if n!='matrix product': np.testing.assert_allclose(a[:len(b)], b, atol=1e-5, err_msg=n)
    return f'mAP {a[0]:.5f} from all'

def product(data): return data[0]@data[1].T
def by_rows(data):
    for i in range(0, len(data[0]), 1000): data[0][i:i+1000]@data[1].T

def vehicleid(scale):
    "As many images and identities as VehicleID's large test set"
    n,ids = dict(full=(20038,2400), quick=(20038,2400), tiny=(300,40))[scale]
    rng = np.random.default_rng(0)
    ids = np.r_[np.arange(ids), np.arange(ids), rng.integers(0, ids, n-2*ids)]
    return features(ids, 512, rng), ids, dict(full=10, quick=4, tiny=1)[scale]

def trials(ids, n):
    rng = np.random.default_rng(0)
    for _ in range(n):
        perm = rng.permutation(len(ids))
        g = np.sort(perm[np.unique(ids[perm], return_index=True)[1]])
        yield np.setdiff1d(perm, g), g
def our_trials(data): return vehicleid_metrics(*data).loc['CMC@1','mean']
def fastreid_trials(data):
    x,ids,n = data
    return np.mean([cy(cosine(x[q], x[g]), ids[q], ids[g], np.zeros(len(q)), np.ones(len(g)), 10, False)[0][0] for q,g in trials(ids, n)])
def all_products(data):
    x,ids,n = data
    for q,g in trials(ids, n): x[q]@x[g].T
def agree_trials(r):
    np.testing.assert_allclose(r['ours'], r['FastReID (Cython)'], atol=1e-5)
    return f"CMC@1 {r['ours']:.5f} from both"

def growth(quick):
    out = []
    for Q,G in [(500,5000),(1000,5000),(2000,5000),(2000,10000),(2000,20000),(2000,40000)]:
        data = veri('full', Q, G)
        out += [once('evaluate_features', ours, data, queries=Q, gallery=G), once('matrix product', product, data, queries=Q, gallery=G)]
    if not quick:
        data = veri('full', 10000, 100000)
        out += [once('evaluate_features', ours, data, calls=1, queries=10000, gallery=100000), once('matrix product', by_rows, data, calls=1, queries=10000, gallery=100000)]
    for n in (50,200,1000,5000): out.append(once('evaluate_features', ours, veri('full', 2000, 10000, n), queries=2000, gallery=10000, identities=n))
    return out

if __name__=='__main__':
    main(Case('evaluation, VeRi-776 size', veri, {'ours': ours, 'FastReID (Cython)': cy and fastreid, 'FastReID (Python)': py and fastreid_python, 'Open Metric Learning': oml(), 'matrix product': product},
            'FastReID (Cython)', agree, 'matrix product', slow=('FastReID (Python)',), full_only=('FastReID (Python)',)),
        Case('evaluation without cameras', veri, {'ours': without_cameras, 'PyTorch Metric Learning': pml(), 'matrix product': product}, 'PyTorch Metric Learning', agree, 'matrix product'),
        Case('evaluation, VehicleID large', vehicleid, {'ours': our_trials, 'FastReID (Cython)': cy and fastreid_trials, 'matrix products': all_products}, 'FastReID (Cython)', agree_trials, 'matrix products', slow=('FastReID (Cython)',)),
        growth=growth)
