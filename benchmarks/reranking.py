"k-reciprocal re-ranking: `k_reciprocal_rerank` beside the authors' procedure as FastReID has it"
from types import SimpleNamespace
import numpy as np
from _bench import Case, main, once, peer
from evaluation import veri
from vehicle_reid.rerank import k_reciprocal_rerank

authors = peer('fastreid/evaluation/rerank.py', 'fastreid_rerank')
if authors: # their sort is not stable: of two images as far from a third to the last bit, chance would decide which is its neighbour
    authors.np = SimpleNamespace(**vars(np)); authors.np.argsort = lambda x: np.argsort(x, kind='stable')

def data(scale):
    if scale!='quick': return veri(scale)[:2]
    return veri('full', 420, 2900, n_ids=50)[:2]

def euclidean(x, y): return np.sqrt(np.maximum((x**2).sum(1)[:,None] + (y**2).sum(1) - 2*x@y.T, 0))
def ours(d): return k_reciprocal_rerank(*d)
def theirs(d): q,g = d; return authors.re_ranking(euclidean(q, g), euclidean(q, q), euclidean(g, g))
def product(d): x = np.concatenate(d); return [x[i:i+512]@x.T for i in range(0, len(x), 512)][:0]

def agree(r):
    diff = np.abs(r['ours']-r['authors (FastReID)']).max()
    assert diff<1e-5, diff
    return f'every entry within {diff:.1e}'

def growth(quick):
    small = [once('k_reciprocal_rerank', ours, veri('full', 1000, n-1000, n_ids=n//60)[:2], calls=3, images=n) for n in (3000,6000,12000)]
    return small + ([] if quick else [once('k_reciprocal_rerank', ours, veri('full', 1678, n-1678, n_ids=n//60)[:2], calls=0, images=n) for n in (24000,48000,101678)])

if __name__=='__main__':
    main(Case('re-ranking, VeRi-776 size', data, {'ours': ours, 'authors (FastReID)': authors and theirs, 'matrix product': product}, 'authors (FastReID)', agree, 'matrix product', slow=('authors (FastReID)',)), growth=growth)
