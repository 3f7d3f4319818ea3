"What must hold whatever the numbers: gradients of the equations, mirrors, permutations, scales, half precision, and a PMNet that never asks PANet"
import pytest, torch
from hypothesis import given, strategies as st
from torch.autograd import gradcheck
from vehicle_reid.all import (MultiScaleAttention, PANet, ReIDDataLoaders, UncertaintyWeights, batch_hard_triplet, channel_recalibration, component_boxes, evaluate_features,
    part_transfer_loss, reid_learner, synth_veri)
from vehicle_reid.parts import part_masks
from vehicle_reid.pmnet import PMNet, fuse
from vehicle_reid.streams import PartStream, crop_resize, mask_max_pool

close = torch.testing.assert_close
def rand(*shape, seed=0, dtype=torch.float32): return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
def leaf(*shape, seed=0): return rand(*shape, seed=seed, dtype=torch.float64).requires_grad_()

# --- gradients, against finite differences
def test_eq3_gradient():
    m = MultiScaleAttention(4).double().eval()
    assert gradcheck(m, leaf(2,4,3,5))

def test_crop_and_mmp_gradients():
    boxes,mask = torch.tensor([[0,1,3,4],[2,0,5,1]]),(rand(2,1,4,5, seed=3)>0).double()
    assert gradcheck(lambda x: crop_resize(x, boxes), leaf(2,3,4,5))
    assert gradcheck(lambda x: mask_max_pool(x, mask), leaf(2,3,4,5))

def test_eq45_gradient():
    "part_transfer_loss works in float32, so the derivative is compared with the literal one: sign of the difference over B·C·H·W"
    s,t = leaf(3,2,4,5, seed=1),leaf(3,2,4,5, seed=2)
    part_transfer_loss(s, t).backward()
    sign = (s.mean((0,1))-t.mean((0,1))).sign().expand(3,2,4,5)/(3*2*4*5)
    close(s.grad, sign.detach()); close(t.grad, -sign.detach())

@given(st.integers(1,5), st.integers(0,99))
def test_eq6_gradient(n, seed):
    u,L = UncertaintyWeights(n).double(),rand(n, seed=seed, dtype=torch.float64).abs()
    with torch.no_grad(): u.log_var.copy_(rand(n, seed=seed+1))
    u(L.float()).backward()
    sigma = (u.log_var.detach()/2).exp()
    close(u.log_var.grad, .5-L/sigma**2, atol=1e-5, rtol=1e-5) # d/ds of L·exp(-s) + s/2

# --- half precision: the same answer, less exact
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    x,boxes,mask = rand(2,8,6,6),torch.tensor([[1,2,4,6],[0,0,6,6]]),(rand(2,1,6,6, seed=2)>0).float()
    tol = dict(atol=.05, rtol=.02)
    close(crop_resize(x.to(dtype), boxes).float(), crop_resize(x, boxes), **tol)
    assert torch.equal(mask_max_pool(x.to(dtype), mask.to(dtype)).float(), mask_max_pool(x.to(dtype).float(), mask))
    assert channel_recalibration(x.to(dtype)).isfinite().all() and part_transfer_loss(x.to(dtype), -x.to(dtype)).isfinite()
    m = MultiScaleAttention(8).eval()
    exact = m(x)
    with torch.autocast('cpu', torch.bfloat16): out = m(x)
    assert not torch.equal(out.float(), exact); close(out.float(), exact, atol=.1, rtol=.1)

# --- one part, one channel, one pixel
def test_smallest_stream():
    s = PartStream(3, 1).eval()
    out = s(rand(2,3,1,1), torch.tensor([[0,0,16,16]]*2), torch.zeros(2,1,16,16)) # one cell, an empty mask
    assert {k: tuple(v.shape) for k,v in out.items()}=={'S':(2,1), 'T':(2,1), 'map_S':(2,1,1,1), 'map_T':(2,1,1,1)} and all(v.isfinite().all() for v in out.values())

def test_one_part():
    net = PMNet(4, 'resnet10t', n_parts=1, feat_dim=16, pretrained=False)
    parts = PANet(4, 'resnet10t', pretrained=False).part_masks(rand(4,3,64,64), n_parts=1)
    out = net(rand(4,3,64,64), parts)
    assert parts.boxes.shape==(4,1,4) and len(out['maps'])==1 and out['features']['T'].shape==(4,8)

# --- mirrors
def mirrored(boxes, w): return torch.stack([w-boxes[...,2], boxes[...,1], w-boxes[...,0], boxes[...,3]], -1)

@given(st.integers(1,9), st.integers(1,9), st.integers(0,999))
def test_a_mirrored_map_mirrors_its_boxes(h, w, seed):
    X = rand(2,5,h,w, seed=seed)
    sizes = lambda m: sorted((int(o) for o in _components(m)), reverse=True)
    boxes,flipped = component_boxes(X),component_boxes(X.flip(-1))
    for b in range(2):
        for c in range(5):
            n = sizes(X[b,c]>X[b,c].mean())
            if len(n)<2 or n[0]>n[1]: assert torch.equal(flipped[b,c], mirrored(boxes[b,c], w)) # of equal components the left one counts, which a mirror changes

def _components(above):
    "Sizes of the 8-connected components, by flood fill"
    todo = {(y,x) for y,x in above.nonzero().tolist()}
    while todo:
        stack,n = [todo.pop()],0
        while stack:
            y,x = stack.pop(); n += 1
            near = {(y+i,x+j) for i in (-1,0,1) for j in (-1,0,1)} & todo
            todo -= near; stack += near
        yield n

# --- permutations
def _blobs(b, c, h, w, seed):
    "Maps with one Gaussian bump each: one component, and centres that never tie"
    g = torch.Generator().manual_seed(seed)
    cy,cx,s = (torch.rand(b,c,1,1, generator=g)*o for o in (h,w,3))
    y,x = torch.arange(h)[:,None],torch.arange(w)
    return (-((y-cy)**2+(x-cx)**2)/(s+1)).exp()

def test_permuted_batches():
    X,fg,p = _blobs(6,20,8,8, 0),rand(6,1,128,128).sigmoid(),torch.randperm(6, generator=torch.Generator().manual_seed(1))
    for a,b in zip(part_masks(X, fg), part_masks(X[p], fg[p])): assert torch.equal(a[p], b)
    f,ids = rand(6,5),torch.arange(3).repeat_interleave(2)
    close(batch_hard_triplet(f[p], ids[p]), batch_hard_triplet(f, ids))
    s,t = rand(6,3,4,4, seed=2),rand(6,3,4,4, seed=3)
    close(part_transfer_loss(s[p], t[p.flip(0)]), part_transfer_loss(s, t)) # it sees the batch's mean alone

# --- scales
@given(st.floats(1e-3, 1e3), st.integers(0,99))
def test_scaled_features_rank_alike(scale, seed):
    q,g = rand(6,8, seed=seed, dtype=torch.float64),rand(20,8, seed=seed+1, dtype=torch.float64)
    ids = torch.arange(6)%3,torch.arange(20)%3
    a,b = evaluate_features(q, g, *ids),evaluate_features(q*scale, g*scale, *ids)
    assert a.mAP==pytest.approx(b.mAP, abs=1e-12) and a.cmc==b.cmc
    close(fuse([q*scale, q], [torch.tensor(2.), torch.tensor(.5)]), fuse([q, q], [torch.tensor(2.), torch.tensor(.5)]))

# --- PMNet only
def silent(panet):
    "A PANet of which no part may be asked, its body and decoder not behind its back either"
    def called(*_): raise AssertionError('PANet was called')
    for m in panet.modules(): m.register_forward_pre_hook(called)
    return panet

@pytest.fixture(scope='module')
def learn(tmp_path_factory):
    path = synth_veri(tmp_path_factory.mktemp('data')/'synth', n_ids=8, n_test=3, n_cams=3, n_workers=1)
    dls = ReIDDataLoaders.from_veri(path, size=64, p=2, k=2, num_workers=0)
    torch.manual_seed(0)
    return reid_learner(dls, 'resnet10t', pretrained=False, feat_dim=32, panet=silent(PANet(5, 'resnet10t', pretrained=False)), path=path)

def test_pmnet_only_never_calls_panet(learn):
    with learn.no_bar():
        only = learn.evaluate()
        learn.embed(learn.dls.query_items); learn.show_rankings(n=1, k=2); learn.gallery(learn.dls.gallery_items); learn.predict(learn.dls.query_items.path[0])
        learn.evaluate(rerank=True)
        with learn.no_logging(): learn.validate()
        for verb in (lambda: learn.evaluate(teachers=True), lambda: learn.show_parts(n=1)):
            with pytest.raises(AssertionError, match='PANet was called'): verb()
        torch.manual_seed(5)
        learn.part_masks.panet = PANet(5, 'resnet10t', pretrained=False)
        assert learn.evaluate().equals(only)
