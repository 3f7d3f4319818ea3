"Part masks: boxes of Algorithm 1, its clusters, and the whole of it from the feature map, beside scikit-image, OpenCV and scikit-learn"
import warnings
import cv2, numpy as np, torch
import torch.nn.functional as F
from skimage.measure import label, regionprops
from sklearn.cluster import KMeans
from _bench import Case, main, once
from vehicle_reid import components
from vehicle_reid.channels import channel_recalibration
from vehicle_reid.parts import box_masks, cluster_boxes, component_boxes, part_masks

def maps(scale, smooth=5, b=None, c=None, size=16):
    "A batch of feature maps: smoothed noise, then softmax, as recalibration leaves them"
    b,c = dict(full=(32,2048), quick=(8,2048), tiny=(1,32))[scale] if b is None else (b,c)
    x = torch.randn(b, c, size, size, generator=torch.Generator().manual_seed(0))
    if smooth>1: x = F.avg_pool2d(F.pad(x, [smooth//2]*4, mode='reflect'), smooth, 1)*smooth
    return x.flatten(2).mul(2).softmax(2).view_as(x)

def noise(scale): return maps(scale, 1)

# ---- boxes: the loops do one image and are charged for all, the rest do the batch ----
def loop(above, one):
    return torch.tensor(np.stack([one(m) for m in above]))
def skimage_box(m):
    o = regionprops(label(m, connectivity=2))
    if not o: return np.array([0,0,*m.shape[::-1]])
    y0,x0,y1,x1 = min((-r.area, r.bbox[0], r.bbox[1], r.bbox) for r in o)[3]
    return np.array([x0,y0,x1,y1])
def opencv_box(m):
    s = cv2.connectedComponentsWithStats(m.view(np.uint8), connectivity=8)[2][1:]
    if not len(s): return np.array([0,0,*m.shape[::-1]])
    x,y,w,h,_ = min(s, key=lambda o: (-o[4], o[1], o[0]))
    return np.array([x,y,x+w,y+h])
def cut(a): return (a>a.mean((2,3), keepdim=True)).flatten(0, 1).numpy()
def by(one): return lambda a: loop(cut(a), one).view(*a.shape[:2], 4)
def ours(a): return component_boxes(a)
def tiles(a):
    words = components._words
    components._words = lambda: None
    try: return component_boxes(a)
    finally: components._words = words
def one_pass(a): cut(a)
def same_boxes(r):
    a = r['ours']
    for n,b in r.items(): assert b is None or torch.equal(a, b), n
    return f'{a.shape[0]*a.shape[1]} boxes, all equal'

# ---- clusters of centres ----
def boxes(scale): return component_boxes(maps(scale, 3))
def inertia(b, labels):
    p = (b[...,:2]+b[...,2:]).numpy()/2
    return sum(((p[i][l==k]-p[i][l==k].mean(0))**2).sum() for i,l in enumerate(labels) for k in np.unique(l))
def our_clusters(b): return inertia(b, cluster_boxes(b).numpy())
def sklearn_clusters(b):
    p = (b[...,:2]+b[...,2:]).numpy()/2
    with warnings.catch_warnings(): warnings.simplefilter('ignore'); return inertia(b, [KMeans(3, n_init=10, random_state=0).fit_predict(o) for o in p])
def one_round(b):
    "Each centre's nearest of three points: what k-means does many times"
    p = (b[...,:2]+b[...,2:]).float()/2
    torch.cdist(p, p[:,:3]).argmin(2)
def same_clusters(r):
    assert r['ours']<=1.01*r['scikit-learn'], r
    return f"inertia {r['ours']/r['scikit-learn']:.5f} of scikit-learn's"

# ---- the whole of Algorithm 1, from X and the foreground ----
def features(scale):
    b,c = dict(full=(8,2048), quick=(2,2048), tiny=(1,32))[scale]
    x = F.relu(maps('full', 5, b, c)*256-.5)*.2
    fg = torch.zeros(b, 1, 256, 256); fg[:,:,30:220,40:230] = 1
    return x, fg
def by_panet(fused):
    def f(d): return part_masks(channel_recalibration(d[0], fused=fused), d[1])
    return f
def whole_literal(d):
    "The boxes of all channels, too: from these the parts must be picked"
    X,fg = d
    x = X.flatten(2)
    G = (x@x.mT).softmax(2)
    a = (G@x).softmax(2).view_as(X)
    b = by(skimage_box)(a)
    p = ((b[...,:2]+b[...,2:]).float()/2).numpy()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        labels = [KMeans(3, n_init=10, random_state=0).fit_predict(o) for o in p]
    chosen = torch.stack([torch.stack([o[l==k][0] for k in range(3)]) for o,l in zip(b*16, labels)])
    return chosen, b*16, box_masks(chosen, *fg.shape[2:])*fg
def same_parts(r):
    ours,every = r['ours'].boxes,r['literal chain'][1]
    assert torch.equal(ours, r['ours, C x C matrix'].boxes)
    assert (ours[:,:,None]==every[:,None]).all(-1).any(-1).all()
    return f'{ours[...,0].numel()} parts, each the box of a channel in the literal chain'
def products(d): x = d[0].flatten(2); return x@x.mT@x

def growth(quick):
    out = [once('component_boxes', ours, maps('full', 5, 4, c), channels=c) for c in (256,512,1024,2048,4096)]
    for name,fused in (('channel_recalibration',True),('channel_recalibration, C x C matrix',False)):
        out += [once(name, lambda x: channel_recalibration(x, fused=fused), maps('full', 5, 4, c), channels=c) for c in (256,512,1024,2048,4096)]
    return out

if __name__=='__main__':
    looped = ('scikit-image, a loop','OpenCV, a loop')
    ways = {'ours': ours, 'ours without numba': tiles, looped[0]: by(skimage_box), looped[1]: by(opencv_box), 'compared with the mean': one_pass}
    main(Case('boxes, smooth maps', maps, ways, looped[0], same_boxes, 'compared with the mean', memory='full', slow=looped[:1]), Case('boxes, noise', noise, ways, looped[0], same_boxes, 'compared with the mean', memory='full', slow=looped[:1]),
        Case('clusters', boxes, {'ours': our_clusters, 'scikit-learn': sklearn_clusters, 'one assignment': one_round}, 'scikit-learn', same_clusters, 'one assignment', memory='full'),
        Case('Algorithm 1 from X', features, {'ours': by_panet(True), 'ours, C x C matrix': by_panet(False), 'literal chain': whole_literal, 'matrix products': products}, 'literal chain', same_parts, 'matrix products', slow=('literal chain',)),
        growth=growth)
