"Eq. 1, eq. 2 and Algorithm 1 against slow versions written from the paper, and at their edges"
import math
import numpy as np, pytest, torch
from hypothesis import given, settings, strategies as st
from sklearn.cluster import KMeans
from vehicle_reid.channels import channel_recalibration
from vehicle_reid.panet import PANet
from vehicle_reid.parts import PartMasks, _Places, box_masks, cluster_boxes, component_boxes, cut_parts, part_masks, pick_boxes, uniform_boxes, uniform_parts

def rand(*shape, seed=0): return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))

# ---- eq. 1 and 2 ----------------------------------------------------------------------------------------------------------------------

def literal_recalibration(X, temperature=1.):
    "One image (C,H,W), in plain Python, float64"
    C,H,W = X.shape
    rows = [[float(v) for v in X[c].flatten()] for c in range(C)]
    def softmax(v):
        m = max(v); e = [math.exp(o-m) for o in v]
        return [o/sum(e) for o in e]
    G = [softmax([sum(a*b for a,b in zip(rows[i], rows[j]))/temperature for j in range(C)]) for i in range(C)]
    return torch.tensor([softmax([sum(G[i][j]*rows[j][p] for j in range(C)) for p in range(H*W)]) for i in range(C)]).view(C,H,W)

@settings(max_examples=25)
@given(st.integers(1,3), st.integers(1,6), st.integers(1,5), st.integers(1,5), st.sampled_from([.1,1.,9.]), st.integers(0,99))
def test_eq1_eq2(b, c, h, w, t, seed):
    X = 3*rand(b, c, h, w, seed=seed)-1
    want = torch.stack([literal_recalibration(o, t) for o in X])
    for fused in (False, True):
        got = channel_recalibration(X, t, fused=fused)
        torch.testing.assert_close(got, want.float(), atol=2e-5, rtol=2e-4)
        torch.testing.assert_close(got.sum((2,3)), torch.ones(b,c))

@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_recalibration_in_other_precisions(dtype):
    X = (200*rand(2,16,8,8)).to(dtype)
    got = channel_recalibration(X)
    assert got.dtype==torch.float32 and got.isfinite().all()
    torch.testing.assert_close(got, channel_recalibration(X.float()))
    with torch.autocast('cpu', dtype=torch.bfloat16): torch.testing.assert_close(channel_recalibration(X), got)

def test_recalibration_edges():
    const = torch.full((1,4,3,3), 2.)
    torch.testing.assert_close(channel_recalibration(const), torch.full((1,4,3,3), 1/9))
    assert channel_recalibration(torch.zeros(1,4,3,3), relative=True).isfinite().all()
    X = rand(3,8,4,4)
    torch.testing.assert_close(channel_recalibration(X[[2,0,1]]), channel_recalibration(X)[[2,0,1]])
    torch.testing.assert_close(channel_recalibration(X.flip(3)), channel_recalibration(X).flip(3))
    mean = X.square().sum((2,3)).mean(1)
    for i in range(3): torch.testing.assert_close(channel_recalibration(X, .2, relative=True)[i], channel_recalibration(X[i:i+1], .2*mean[i].item())[0])

# ---- boxes ----------------------------------------------------------------------------------------------------------------------------

def literal_box(m, threshold=None):
    "Flood fill in plain Python; largest, then topmost, then leftmost"
    H,W = len(m),len(m[0])
    t = sum(map(sum, m))/(H*W) if threshold is None else threshold
    on,best = {(y,x) for y in range(H) for x in range(W) if m[y][x]>t},None
    while on:
        todo = [min(on)]; comp = set(todo); on -= comp
        while todo:
            y,x = todo.pop()
            near = {(y+a,x+b) for a in (-1,0,1) for b in (-1,0,1)} & on
            on -= near; comp |= near; todo += near
        ys,xs = [o[0] for o in comp],[o[1] for o in comp]
        box = (min(xs), min(ys), max(xs)+1, max(ys)+1)
        key = (-len(comp), box[1], box[0])
        if best is None or key<best[0]: best = key,box
    return best[1] if best else (0,0,W,H)

@settings(max_examples=60)
@given(st.integers(1,2), st.integers(1,5), st.integers(1,7), st.integers(1,7), st.integers(2,6), st.integers(0,10**6))
def test_component_boxes(b, c, h, w, levels, seed):
    m = (rand(b, c, h, w, seed=seed)*levels).floor()/8 # eighths: means are exact, ties and equal components are common
    def half_way_up(x): return (sum(map(sum, x))/(h*w) + max(map(max, x)))/2
    for kw,t in (({}, lambda x: None), (dict(threshold=.2), lambda x: .2), (dict(threshold='half'), half_way_up)):
        got = component_boxes(m, **kw)
        assert got.dtype==torch.int64 and got.tolist()==[[list(literal_box(x, t(x))) for x in o] for o in m.tolist()]

def test_component_boxes_edges():
    assert component_boxes(torch.full((1,1,4,6), .3))[0,0].tolist()==[0,0,6,4] # constant: the whole map
    m = torch.zeros(1,1,5,5); m[0,0,4,2] = 1
    assert component_boxes(m)[0,0].tolist()==[2,4,3,5] # one cell
    assert component_boxes(torch.ones(1,1,1,1))[0,0].tolist()==[0,0,1,1]
    m = rand(4,8,9,7)
    x0,y0,x1,y1 = component_boxes(m).unbind(-1)
    mx0,my0,mx1,my1 = component_boxes(m.flip(3)).unbind(-1)
    assert ((y0==my0)&(x0==7-mx1)&(x1==7-mx0)).float().mean()>.9 # but for equally large components
    assert torch.equal(component_boxes(m.half()), component_boxes(m.half().float()))

# ---- clusters -------------------------------------------------------------------------------------------------------------------------

def some_boxes(n, seed, side=8):
    p = torch.randint(0, side, (1,n,2), generator=torch.Generator().manual_seed(seed))
    return torch.cat([p, p+1], -1)

def inertia(points, labels):
    return sum(((points[labels==k]-points[labels==k].mean(0))**2).sum().item() for k in labels.unique())

@settings(max_examples=60)
@given(st.integers(1,5), st.integers(1,40), st.integers(0,10**6))
def test_clusters_are_tight_ordered_and_as_many_as_can_be(k, n, seed):
    boxes = some_boxes(n, seed)
    labels = cluster_boxes(boxes, k)[0]
    points = boxes[0].float()[:,:2]+.5
    d = min(k, len(points.unique(dim=0)))
    assert sorted(labels.unique().tolist())==list(range(d))
    ys = [points[labels==j,1].mean().item() for j in range(d)]
    assert all(b>=a-1e-4 for a,b in zip(ys, ys[1:]))
    best = KMeans(d, n_init=20, random_state=0).fit(points.numpy()).inertia_
    assert inertia(points, labels) <= 1.3*best + 1e-4

def test_clusters_of_a_whole_map_are_as_tight_as_sklearns():
    boxes = component_boxes(torch.nn.functional.interpolate(rand(6,512,5,5), size=(16,16), mode='bilinear'))
    labels = cluster_boxes(boxes)
    for b,l in zip(boxes, labels):
        points = (b[:,:2]+b[:,2:]).float()/2
        assert inertia(points, l) <= 1.02*KMeans(3, n_init=10, random_state=0).fit(points.numpy()).inertia_

def test_equal_heights_go_left_to_right_and_batches_do_not_mix():
    boxes = torch.tensor([[[12,4,14,6],[0,4,2,6],[6,4,8,6],[12,4,14,6]]])
    assert cluster_boxes(boxes)[0].tolist()==[2,0,1,2]
    many = torch.cat([some_boxes(30, s) for s in range(5)])
    assert torch.equal(cluster_boxes(many[[3,1,4,0,2]]), cluster_boxes(many)[[3,1,4,0,2]])
    assert torch.equal(torch.cat([cluster_boxes(o[None]) for o in many]), cluster_boxes(many))
    with pytest.raises(ValueError, match='n_parts=0'): cluster_boxes(many, 0)

# ---- picks ----------------------------------------------------------------------------------------------------------------------------

def literal_pick(boxes, labels, k):
    out = []
    for j in range(k):
        mine = [b for b,l in zip(boxes, labels) if l==j]
        if not mine: out.append(out[-1]); continue
        cx,cy = (sum((b[i]+b[i+2])/2 for b in mine)/len(mine) for i in (0,1))
        out.append(min(mine, key=lambda b: ((b[0]+b[2])/2-cx)**2+((b[1]+b[3])/2-cy)**2))
    return out

@settings(max_examples=40)
@given(st.integers(1,4), st.integers(1,20), st.integers(0,10**6))
def test_picks_are_the_most_central(k, n, seed):
    boxes = some_boxes(n, seed); labels = cluster_boxes(boxes, k)
    got,want = pick_boxes(boxes, labels, k)[0].tolist(),literal_pick(boxes[0].tolist(), labels[0].tolist(), k)
    for j,(g,w) in enumerate(zip(got, want)): # equally central ones may be told apart by rounding
        mine = [b for b,l in zip(boxes[0].tolist(), labels[0].tolist()) if l==j] or [w]
        cx,cy = (np.mean([b[i]+b[i+2] for b in mine])/2 for i in (0,1))
        far = lambda b: ((b[0]+b[2])/2-cx)**2+((b[1]+b[3])/2-cy)**2
        assert far(g)<=far(w)+1e-4

def test_random_picks_come_from_their_cluster_with_equal_chances():
    boxes = torch.tensor([[[0,0,2,2],[1,0,3,2],[0,1,2,3],[9,9,11,11],[9,9,11,11]]])
    labels = torch.tensor([[0,0,0,1,1]]); g = torch.Generator().manual_seed(0)
    got = [pick_boxes(boxes, labels, 2, random=True, generator=g)[0].tolist() for _ in range(900)]
    counts = [sum(o[0]==b for o in got) for b in boxes[0,:3].tolist()]
    assert all(o[1]==[9,9,11,11] for o in got) and sum(counts)==900 and min(counts)>240
    again = [pick_boxes(boxes, labels, 2, random=True, generator=torch.Generator().manual_seed(0))[0].tolist() for _ in range(2)]
    assert again[0]==again[1]

# ---- masks ----------------------------------------------------------------------------------------------------------------------------

def test_algorithm1_whole_against_the_literal_one():
    X,fg = channel_recalibration(4*rand(3,24,8,8)),rand(3,1,128,128,seed=1)
    got = part_masks(X, fg)
    labels = cluster_boxes(component_boxes(X))
    for i in range(3):
        boxes = [literal_box(o.tolist()) for o in X[i]]
        for k,box in enumerate(literal_pick(boxes, labels[i].tolist(), 3)):
            x0,y0,x1,y1 = (16*o for o in box)
            assert got.boxes[i,k].tolist()==[x0,y0,x1,y1]
            want = torch.zeros(128,128); want[y0:y1,x0:x1] = (fg[i,0,y0:y1,x0:x1]>=.5).float()
            assert torch.equal(got.masks[i,k], want)

def test_masks_at_the_edges():
    X = rand(2,6,4,4)
    empty = part_masks(X, torch.zeros(2,1,64,64))
    assert torch.equal(empty.masks, box_masks(empty.boxes, 64, 64)) and empty.masks.any(-1).any(-1).all() # no foreground: the box
    flat = part_masks(torch.ones(2,6,4,4), torch.ones(2,1,64,64))
    assert flat.boxes.tolist()==[[[0,0,64,64]]*3]*2 # one distinct box for three parts
    one = part_masks(rand(1,1,4,4), torch.ones(1,1,64,64))
    assert one.boxes.shape==(1,3,4) and len(one.boxes[0].unique(dim=0))==1 # one channel
    single = part_masks(X, torch.ones(2,1,64,64), n_parts=1)
    assert single.boxes.shape==(2,1,4)
    odd = part_masks(X, torch.ones(2,1,50,30))
    assert (odd.boxes[...,2]<=30).all() and (odd.boxes[...,3]<=50).all() and odd.masks.shape==(2,3,50,30)
    perm = [1,0]
    for a,b in zip(part_masks(X[perm], rand(2,1,64,64)[perm]), part_masks(X, rand(2,1,64,64))): assert torch.equal(a, b[perm])

@pytest.mark.parametrize('h,w,k', [(16,16,3), (9,5,3), (2,4,3), (16,16,1)])
def test_stripes(h, w, k):
    boxes = uniform_boxes(2, h, w, k)
    assert boxes.shape==(2,k,4) and (boxes[...,3]>boxes[...,1]).all() and boxes[0,0,:2].tolist()==[0,0] and boxes[0,-1,2:].tolist()[0]==w
    if h>=k: assert torch.equal(box_masks(boxes, h, w).sum(1), torch.ones(2,h,w)) # every pixel in one stripe
    parts = uniform_parts(torch.ones(2,1,h,w), k)
    assert torch.equal(parts.boxes, boxes) and torch.equal(parts.masks, box_masks(boxes, h, w))

def test_panet_part_masks_and_its_callback():
    torch.manual_seed(0)
    panet = PANet(5, 'resnet10t', pretrained=False).train()
    x = torch.randn(2,3,64,64)
    parts = panet.part_masks(x)
    assert panet.training and not any(o.requires_grad for o in parts)
    X = panet.eval().encode(x)
    want = part_masks(channel_recalibration(X), panet.foreground(X))
    for a,b in zip(parts, want): torch.testing.assert_close(a, b)
    raw,rel = panet.part_masks(x, recalibrate=False),panet.part_masks(x, temperature=1/32, relative=True)
    assert not torch.equal(raw.boxes, parts.boxes) or not torch.equal(rel.boxes, parts.boxes)
    for a,b in zip(PartMasks(panet, temperature=1/32, relative=True).parts(x), rel): torch.testing.assert_close(a, b)
    half = panet.part_masks(x, threshold='half')
    assert not torch.equal(half.boxes, parts.boxes)
    for a,b in zip(PartMasks(panet, threshold='half').parts(x), half): torch.testing.assert_close(a, b)
    with pytest.raises(ValueError, match='multiples of 16'): panet.part_masks(torch.randn(1,3,60,64))

@pytest.mark.parametrize('scale,n_parts', [(1,3),(1,5),(16,3)], ids=['places','places, K=5','points'])
def test_clusters_are_as_tight_as_those_of_scikit_learn(scale, n_parts):
    "Centres on few places, and on so many that each box is its own"
    r = np.random.default_rng(0)
    lo = r.integers(0, 8*scale, (4,600,2)); hi = lo + r.integers(1, 5*scale, (4,600,2))
    boxes = torch.from_numpy(np.concatenate([lo, hi], 2)); p = (lo+hi)/2
    assert (_Places.from_boxes(boxes).n.shape[1]<600) == (scale==1)
    def inertia(labels): return sum(((x[l==k]-x[l==k].mean(0))**2).sum() for x,l in zip(p, labels) for k in np.unique(l))
    ours,theirs = inertia(cluster_boxes(boxes, n_parts).numpy()),inertia([KMeans(n_parts, n_init=10, random_state=0).fit_predict(x) for x in p])
    assert ours<=1.01*theirs

def test_clusters_of_an_image_do_not_depend_on_the_batch():
    r = np.random.default_rng(0); lo = r.integers(0, 6, (5,300,2)); lo[0] += 9
    boxes = torch.from_numpy(np.concatenate([lo, lo+r.integers(1, 5, (5,300,2))], 2)); whole = cluster_boxes(boxes)
    for i in range(5): assert torch.equal(cluster_boxes(boxes[i:i+1])[0], whole[i])
