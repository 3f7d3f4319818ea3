"Algorithm 1, whole, against one that floods every map and tries every clustering; mirrored, at its edges, in four precisions, and moved with its image"
import itertools
import pytest, torch
from hypothesis import assume, example, given, settings, strategies as st
from vehicle_reid.data import FlipPadCrop, TensorImage
from vehicle_reid.panet import MaskDecoder, PANet
from vehicle_reid.channels import channel_recalibration
from vehicle_reid.parts import box_masks, cluster_boxes, component_boxes, cut_parts, part_masks, pick_boxes, uniform_boxes, uniform_parts

dtypes = torch.float64,torch.float32,torch.float16,torch.bfloat16
def rand(*shape, seed=0): return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))

def literal_box(m):
    "Lines 3-4, and whether another component is as large: growing each cell's label to its neighbours' until nothing changes"
    H,W = len(m),len(m[0]); t = sum(map(sum, m))/(H*W)
    label = {(y,x): (y,x) for y in range(H) for x in range(W) if m[y][x]>t}
    if not label: return (0,0,W,H),False
    while True:
        new = {(y,x): min(label.get((y+a,x+b), l) for a in (-1,0,1) for b in (-1,0,1)) for (y,x),l in label.items()}
        if new==label: break
        label = new
    comps = [[o for o in label if label[o]==l] for l in set(label.values())]
    boxes = sorted((-len(c), min(y for y,_ in c), min(x for _,x in c), max(x for _,x in c)+1, max(y for y,_ in c)+1) for c in comps)
    return (boxes[0][2], boxes[0][1], *boxes[0][3:]), len(boxes)>1 and boxes[0][0]==boxes[1][0]

def center(b): return (b[0]+b[2])/2,(b[1]+b[3])/2
def sq(a, b): return (a[0]-b[0])**2+(a[1]-b[1])**2
def mean(ps): return tuple(sum(o)/len(ps) for o in zip(*ps))

def literal_clusters(boxes, K):
    "Line 6: the tightest of all clusterings into at most K, top to bottom, then left to right; None where two are about as tight, or two clusters as high"
    ps = [center(b) for b in boxes]; d = min(K, len(set(ps)))
    found = {}
    for ls in itertools.product(range(d), repeat=len(ps)):
        groups = frozenset(frozenset(i for i,l in enumerate(ls) if l==k) for k in range(d))
        if len(groups)==d and frozenset() not in groups and groups not in found:
            found[groups] = sum(sq(ps[i], mean([ps[j] for j in g])) for g in groups for i in g)
    best,*rest = sorted(found, key=found.get)
    if rest and found[rest[0]]<=1.02*found[best]+1e-6: return None
    order = sorted(best, key=lambda g: mean([ps[i] for i in g])[::-1]); ys = [mean([ps[i] for i in g])[1] for g in order]
    return None if any(b-a<1e-3 for a,b in zip(ys, ys[1:])) else [sorted(g) for g in order]

def literal_picks(boxes, clusters, K):
    "Lines 8-10, the most central of each cluster; a part without a cluster has the box before it; None where two boxes are as central"
    out = []
    for g in clusters:
        m = mean([center(boxes[i]) for i in g]); far = sorted((sq(center(boxes[i]), m), boxes[i]) for i in g)
        if any(o[1]!=far[0][1] and o[0]-far[0][0]<1e-3 for o in far): return None
        out.append(far[0][1])
    return out + out[-1:]*(K-len(out))

def literal_masks(picks, fg, sy, sx):
    "Line 11, `fg` a list of rows, `sy`×`sx` pixels a cell"
    out = []
    for x0,y0,x1,y1 in picks:
        inside = [[y0*sy<=y<y1*sy and x0*sx<=x<x1*sx for x in range(len(fg[0]))] for y in range(len(fg))]
        cut = [[float(i and f>=.5) for i,f in zip(*o)] for o in zip(inside, fg)]
        out.append(cut if any(map(any, cut)) else [list(map(float, o)) for o in inside])
    return out

def literal(X, fg, K, sy, sx, unique=True):
    boxes,doubt = zip(*(literal_box(m) for m in X.double().tolist()))
    clusters = literal_clusters(boxes, K); picks = clusters and literal_picks(boxes, clusters, K)
    return (boxes, clusters, picks, literal_masks(picks, fg[0].tolist(), sy, sx)) if picks and not (unique and any(doubt)) else None

def maps(c, h, w, seed, dtype=torch.float32):
    "Eighths, which every precision holds: a plateau a channel, and specks"
    g,X = torch.Generator().manual_seed(seed),torch.zeros(c,h,w)
    for m in X:
        y0,x0 = (int(torch.randint(0, n, (1,), generator=g)) for n in (h,w)); m[y0:y0+1+y0%3, x0:x0+1+(x0+y0)%4] = .625
        m[torch.rand(h, w, generator=g)<.06] = .875
    return X.to(dtype)

some = dict(c=st.integers(1,7), K=st.integers(1,4), h=st.integers(1,6), w=st.integers(1,6), seed=st.integers(0,10**6))

@settings(max_examples=60)
@given(**some, sy=st.integers(1,3), sx=st.integers(1,3), empty=st.booleans(), dtype=st.sampled_from(dtypes))
@example(c=1, K=3, h=4, w=4, seed=0, sy=2, sx=2, empty=True, dtype=torch.float16) # one channel, no foreground
@example(c=3, K=2, h=1, w=1, seed=0, sy=1, sx=1, empty=False, dtype=torch.bfloat16) # one pixel
def test_algorithm_1(c, K, h, w, seed, sy, sx, empty, dtype):
    X,fg = maps(c, h, w, seed, dtype),rand(1,h*sy,w*sx, seed=seed)*(not empty)
    want = literal(X, fg, K, sy, sx, unique=False); assume(want); boxes,clusters,picks,masks = want
    assert component_boxes(X[None])[0].tolist()==list(map(list, boxes))
    labels = cluster_boxes(component_boxes(X[None]), K)[0].tolist()
    assert [[i for i,l in enumerate(labels) if l==k] for k in range(len(clusters))]==clusters
    parts = part_masks(X[None], fg[None], K)
    assert parts.boxes[0].tolist()==[[x0*sx,y0*sy,x1*sx,y1*sy] for x0,y0,x1,y1 in picks] and parts.masks[0].tolist()==masks and torch.equal(parts.foreground, fg[None])
    seen = [set() for _ in range(K)]
    for i in range(30):
        for k,b in enumerate(part_masks(X[None], fg[None], K, random=True, generator=torch.Generator().manual_seed(i)).boxes[0].tolist()): seen[k].add(tuple(b))
    may = [{(x0*sx,y0*sy,x1*sx,y1*sy) for x0,y0,x1,y1 in (boxes[i] for i in g)} for g in clusters]; may += may[-1:]*(K-len(may))
    for s,m in zip(seen, may): assert s<=m and (len(s)>1)==(len(m)>1) # any box of the cluster, no other

@pytest.mark.parametrize('dtype', dtypes)
@pytest.mark.parametrize('value', [0.,.3,200.])
def test_constant_channels_are_the_whole_map(dtype, value):
    X = maps(3, 4, 5, 1, dtype); X[1] = value
    assert component_boxes(X[None])[0].tolist()==[list(literal_box(m)[0]) for m in X.float().tolist()] and component_boxes(X[None])[0,1].tolist()==[0,0,5,4]
    for K in (1,3):
        parts = part_masks(torch.full((1,4,4,5), value, dtype=dtype), torch.ones(1,1,8,10), K)
        assert parts.boxes.tolist()==[[[0,0,10,8]]*K] and parts.masks.all() and parts.masks.shape==(1,K,8,10)

@settings(max_examples=30)
@given(st.integers(1,20), st.integers(1,5), st.integers(0,10**6))
def test_k_means_has_come_to_rest(n, K, seed):
    "No centre is nearer to another cluster's mean than to its own"
    p = (rand(n, 2, seed=seed)*9).long(); boxes = torch.cat([p, p+1+(rand(n, 2, seed=seed+1)*4).long()], 1)
    labels,ps = cluster_boxes(boxes[None], K)[0].tolist(),[center(b) for b in boxes.tolist()]
    means = {l: mean([q for q,o in zip(ps, labels) if o==l]) for l in set(labels)}
    for q,l in zip(ps, labels): assert sq(q, means[l])<=min(sq(q, m) for m in means.values())+1e-3

@pytest.mark.parametrize('n', [1,3,7])
def test_one_part_is_the_most_central_box(n):
    boxes = torch.tensor([[[i*i,i,i*i+2,i+2] for i in range(n)]]); labels = cluster_boxes(boxes, 1)
    assert not labels.any() and pick_boxes(boxes, labels, 1)[0].tolist()==[list(o) for o in literal_picks([tuple(b) for b in boxes[0].tolist()], [range(n)], 1)]

# --- mirrors
def mirrored(boxes, w): return torch.stack([w-boxes[...,2], boxes[...,1], w-boxes[...,0], boxes[...,3]], -1)

@settings(max_examples=60)
@given(**some)
@example(c=6, K=2, h=6, w=5, seed=0) # two clusters; below, three
@example(c=5, K=3, h=6, w=6, seed=12)
@example(c=5, K=3, h=6, w=6, seed=143)
@example(c=5, K=3, h=6, w=6, seed=189)
def test_a_mirrored_image_mirrors_its_parts(c, K, h, w, seed):
    "Exactly, wherever the paper's steps leave no choice: from the map on, for a network with strides sees a mirrored image otherwise"
    X,fg = maps(c, h, w, seed),rand(1,2*h,2*w, seed=seed); assume(literal(X, fg, K, 2, 2))
    a,b = part_masks(X[None], fg[None], K),part_masks(X.flip(-1)[None], fg.flip(-1)[None], K)
    assert torch.equal(component_boxes(X.flip(-1)[None]), mirrored(component_boxes(X[None]), w))
    assert torch.equal(cluster_boxes(component_boxes(X.flip(-1)[None]), K), cluster_boxes(component_boxes(X[None]), K))
    assert torch.equal(b.boxes, mirrored(a.boxes, 2*w)) and torch.equal(b.masks, a.masks.flip(-1))

def test_a_mirrored_image_mirrors_its_parts_from_the_pixels_on():
    "With a PANet to which a mirrored image is the mirrored map: cells averaged whole, and a decoder of even kernels"
    compared = moved = 0
    for seed in range(30):
        torch.manual_seed(seed); c,K = 3+seed%4,1+seed%3; net = PANet(3, 'resnet10t', pretrained=False).eval()
        net.body,net.decoder = torch.nn.Sequential(torch.nn.AvgPool2d(16), torch.nn.Conv2d(3, c, 1)),MaskDecoder(c, 8).eval()
        for m in net.decoder.modules():
            if isinstance(m, torch.nn.ConvTranspose2d): m.weight.data = (m.weight.data+m.weight.data.flip(-1))/2
        x = (rand(1,3,6,5, seed=seed)*64).floor().repeat_interleave(16, 2).repeat_interleave(16, 3)/8 # sums over cells are exact
        with torch.no_grad():
            X = net.encode(x); net.decoder[-1][0].bias -= net.decoder(X).median() # half of the image is foreground
            if literal(channel_recalibration(X)[0], net.foreground(X)[0], K, 16, 16) is None: continue # the paper's steps leave a choice
        a,b = net.part_masks(x, n_parts=K),net.part_masks(x.flip(-1), n_parts=K)
        assert torch.equal(b.boxes, mirrored(a.boxes, 80))
        torch.testing.assert_close(b.foreground, a.foreground.flip(-1)); near = (a.foreground-.5).abs()<1e-5
        assert ((b.masks==a.masks.flip(-1)) | near.flip(-1)).all()
        compared += 1; moved += not torch.equal(a.boxes, b.boxes) and not torch.equal(a.masks, b.masks)
    assert compared>=10 and moved>=8, (compared, moved)

def test_a_mirrored_image_mirrors_eq2_and_the_stripes():
    X = rand(2,9,4,6); torch.testing.assert_close(channel_recalibration(X.flip(-1)), channel_recalibration(X).flip(-1))
    boxes = uniform_boxes(2, 9, 7, 3); assert torch.equal(mirrored(boxes, 7), boxes)
    fg = rand(2,1,9,7); assert torch.equal(uniform_parts(fg.flip(-1)).masks, uniform_parts(fg).masks.flip(-1))

@settings(max_examples=30)
@given(st.integers(4,12), st.integers(4,12), st.integers(0,4), st.sampled_from([0.,.5,1.]), st.integers(0,999))
def test_parts_kept_move_as_their_image(h, w, pad, p, seed):
    "A painted box, moved as a picture, is the moved box"
    torch.manual_seed(seed); t,lo = FlipPadCrop(p, pad),(rand(3,4,2, seed=seed)*torch.tensor([w-1,h-1])).long()
    boxes = torch.cat([lo, lo+1+(rand(3,4,2, seed=seed+1)*(torch.tensor([w,h])-lo-.001)).long()], -1)
    t(TensorImage(rand(3,3,h,w)), split_idx=0)
    painted = t.move(box_masks(boxes, h, w)); seen,moved = painted.any(-1).any(-1),t.move_boxes(boxes)
    assert torch.equal(box_masks(moved, h, w)[seen], painted[seen]) and (moved[...,2:]>moved[...,:2]).all() and moved.min()>=0
    if pad==0 and p==1: assert torch.equal(moved, mirrored(boxes, w)) and seen.all()

# --- images of one batch are strangers
def test_permuted_images_permute_panets_parts():
    torch.manual_seed(0); net,x,p = PANet(3, 'resnet10t', pretrained=False),rand(4,3,64,64),[2,0,3,1]
    for kw in (dict(), dict(temperature=1/32, relative=True), dict(recalibrate=False), dict(n_parts=1)):
        whole,perm,alone = net.part_masks(x, **kw),net.part_masks(x[p], **kw),[net.part_masks(o[None], **kw) for o in x]
        for a,b in zip(whole[:2], perm): assert torch.equal(a[p], b)
        assert torch.equal(whole.boxes, torch.cat([o.boxes for o in alone])) and len(whole.boxes.flatten(1).unique(dim=0))>1

@given(st.integers(1,4), st.integers(1,4), st.integers(0,99))
@settings(max_examples=20)
def test_cut_parts(K, n, seed):
    lo = (rand(1,K,2, seed=seed)*n).long(); boxes = torch.cat([lo, lo+1], -1).clamp(max=n); fg = rand(1,1,n,n, seed=seed).mul(8).round()/8 # ½ counts
    assert cut_parts(boxes, fg).masks[0].tolist()==literal_masks(boxes[0].tolist(), fg[0,0].tolist(), 1, 1)

def test_no_image_has_no_parts_and_bad_arguments_are_named():
    none = part_masks(torch.rand(0,4,6,6), torch.rand(0,1,96,96))
    assert [o.shape[0] for o in none]==[0,0,0] and cluster_boxes(torch.zeros(0,4,4, dtype=torch.long)).shape==(0,4)
    with pytest.raises(ValueError, match=r'\(4, 6, 6\); needed are maps'): component_boxes(torch.rand(4,6,6))
    with pytest.raises(ValueError, match="'median' is none of"): component_boxes(torch.rand(1,4,6,6), 'median')

@pytest.mark.parametrize('relative,temperature', [(False,1.),(True,1/32)])
def test_panets_fused_recalibration_gives_the_literal_boxes(relative, temperature):
    panet = PANet(5, 'resnet10t', pretrained=False).eval()
    x = torch.randn(3,3,96,96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        boxes,labels,_ = panet.part_boxes(x, temperature=temperature, relative=relative)
        assert torch.equal(boxes, component_boxes(channel_recalibration(panet.encode(x), temperature, relative=relative)))
    assert torch.equal(labels, cluster_boxes(boxes))
