"k-reciprocal re-ranking: `k_reciprocal_rerank` beside the authors' procedure as FastReID has it"
import numpy as np
from _bench import Case, main, once, peer
from evaluation import veri
from vehicle_reid.rerank import k_reciprocal_rerank

authors = peer('fastreid/evaluation/rerank.py', 'fastreid_rerank')

def data(scale):
    if scale!='quick': return veri(scale)[:2]
    return veri('full', 420, 2900, n_ids=50)[:2]

def euclidean(x, y): return np.sqrt(np.maximum((x**2).sum(1)[:,None] + (y**2).sum(1) - 2*x@y.T, 0))
def ours(d): return k_reciprocal_rerank(*d)
def theirs(d): q,g = d; return authors.re_ranking(euclidean(q, g), euclidean(q, q), euclidean(g, g))
def product(d): x = np.concatenate(d); return [x[i:i+512]@x.T for i in range(0, len(x), 512)][:0]

def agree(r):
    "Two images as far from a third to the last bit stand in no order that the authors' sort would keep, and a neighbour more or less is felt by a few others; all else is equal"
    diff = np.abs(r['ours']-r['authors (FastReID)'])
    far = (diff>=1e-5).mean()
    assert far<1e-4, far
    return f'{1-far:.4%} of the entries within {diff[diff<1e-5].max():.1e}' + (f', the rest within {diff.max():.1e}' if far else '')

def growth(quick):
    small = [once('k_reciprocal_rerank', ours, veri('full', 1000, n-1000, n_ids=n//60)[:2], calls=3, images=n) for n in (3000,6000,12000)]
    return small + ([] if quick else [once('k_reciprocal_rerank', ours, veri('full', 1678, n-1678, n_ids=n//60)[:2], calls=0, images=n) for n in (24000,48000,101678)])

if __name__=='__main__':
    main(Case('re-ranking, VeRi-776 size', data, {'ours': ours, 'authors (FastReID)': authors and theirs, 'matrix product': product}, 'authors (FastReID)', agree, 'matrix product', slow=('authors (FastReID)',)), growth=growth)
