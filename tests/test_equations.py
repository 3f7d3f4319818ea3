"Eq. 3-7, the crop, the poolings: each against a slow literal version written from the paper, with gradients and at the edges"
import math
import pytest, torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from vehicle_reid.attention import MultiScaleAttention, attentions
from vehicle_reid.streams import PartStream, crop_resize, mask_max_pool, to_cells
from vehicle_reid.losses import ReIDLoss, batch_hard_triplet
from vehicle_reid.transfer import part_transfer_loss
from vehicle_reid.hul import UncertaintyWeights
from vehicle_reid.pmnet import fuse

close = torch.testing.assert_close

def rand(*shape, seed=0, dtype=torch.float32): return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)

# --- eq. 3
@pytest.mark.parametrize('b,c,h,w', [(2,8,5,7), (1,64,1,1), (3,16,16,16)])
def test_eq3_mam(b, c, h, w):
    m,P = MultiScaleAttention(c).eval(),rand(b,c,h,w)
    C,S = m.channel(P),m.spatial(P)
    out = torch.empty_like(P)
    for i in range(b):
        for ch in range(c):
            for y in range(h):
                for x in range(w): out[i,ch,y,x] = (C[i,ch,0,0]*S[i,0,y,x] + 1)*P[i,ch,y,x]
    close(m(P), out)

def test_channel_mask_is_cbam():
    "sigmoid(MLP(GAP) + MLP(GMP)), the MLP shared"
    m,P = MultiScaleAttention(32).channel,rand(2,32,6,6)
    def mlp(v): return m.mlp[2].weight[:,:,0,0]@F.relu(m.mlp[0].weight[:,:,0,0]@v + m.mlp[0].bias) + m.mlp[2].bias
    for i in range(2):
        flat = P[i].flatten(1)
        close(m(P)[i,:,0,0], torch.sigmoid(mlp(flat.mean(1)) + mlp(flat.max(1).values)))

def test_spatial_mask_sees_three_dilations():
    m = MultiScaleAttention(16).spatial
    assert [s[0].dilation for s in m.scales]==[(1,1),(2,2),(3,3)]
    assert isinstance(m.fuse[-1], torch.nn.Conv2d) # no ReLU in front of the sigmoid

@pytest.mark.parametrize('name', list(attentions))
def test_attention_keeps_shape_and_has_gradient(name):
    P = rand(2,16,9,7).requires_grad_()
    out = attentions[name](16)(P)
    assert out.shape==P.shape
    out.sum().backward()
    assert P.grad.isfinite().all() and P.grad.abs().sum()>0

# --- crop and resize, MMP
@settings(max_examples=40, deadline=None)
@given(st.integers(1,18), st.integers(1,18), st.data())
def test_crop_resize_is_slice_and_interpolate(H, W, data):
    boxes = []
    for _ in range(2):
        x0,y0 = data.draw(st.integers(0,W-1)),data.draw(st.integers(0,H-1))
        boxes.append([x0, y0, data.draw(st.integers(x0+1,W)), data.draw(st.integers(y0+1,H))])
    Fk = rand(2,3,H,W, seed=H*W, dtype=torch.float64).requires_grad_()
    literal = torch.cat([F.interpolate(f[None,:,y0:y1,x0:x1], (H,W), mode='bilinear', align_corners=False) for f,(x0,y0,x1,y1) in zip(Fk, boxes)])
    out = crop_resize(Fk, torch.tensor(boxes))
    close(out, literal, atol=1e-5, rtol=1e-5)
    w = rand(*out.shape, seed=1, dtype=torch.float64)
    close(torch.autograd.grad((out*w).sum(), Fk)[0], torch.autograd.grad((literal*w).sum(), Fk)[0], atol=1e-5, rtol=1e-5)

def test_crop_of_the_whole_map_is_the_map():
    Fk = rand(2,3,7,9)
    close(crop_resize(Fk, torch.tensor([[0,0,9,7]]*2)), Fk)

@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
def test_mask_max_pool(dtype):
    P,mask = rand(4,5,6,6, dtype=dtype),(rand(4,1,6,6, seed=3)>0).float()
    mask[1] = 0
    out = mask_max_pool(P, mask)
    for i in range(4):
        for c in range(5):
            inside = [P[i,c,y,x].item() for y in range(6) for x in range(6) if mask[i,0,y,x]>=.5 or mask[i].max()<.5]
            assert out[i,c].item()==max(inside)

def test_mmp_gradient_goes_to_the_maximum_inside():
    P = torch.tensor([[[[5.,1.],[2.,0.]]]], requires_grad=True)
    mask_max_pool(P, torch.tensor([[[[0.,1.],[1.,1.]]]])).sum().backward()
    assert P.grad.tolist()==[[[[0.,0.],[1.,0.]]]]

@given(st.integers(0,120), st.integers(0,120), st.integers(1,64), st.integers(1,64))
def test_to_cells_covers_and_is_never_empty(x0, y0, w, h):
    cx0,cy0,cx1,cy1 = to_cells(torch.tensor([x0,y0,x0+w,y0+h]), 1/16, 1/16).tolist()
    assert cx0*16<=x0 and cy0*16<=y0 and cx1*16>=x0+w and cy1*16>=y0+h and cx1>cx0 and cy1>cy0

def test_shared_stream_uses_one_batch_and_one_set_of_weights():
    X,boxes,mask = rand(3,32,4,4),torch.tensor([[0,0,32,32]]*3),torch.ones(3,1,64,64)
    s = PartStream(32, 8)
    assert not hasattr(s, 'look_teacher')
    out = s(X, boxes, mask)
    F_k = s.reduce(X)
    close(torch.cat([out['map_S'],out['map_T']]), s.look(torch.cat([F_k, s.crop(F_k, boxes, mask)[0]])), atol=1e-4, rtol=1e-4)
    close(out['S'], out['map_S'].mean((2,3))); close(out['T'], out['map_T'].amax((2,3)))

def test_unshared_stream_starts_alike_and_drifts_apart():
    s = PartStream(32, 8, share=False)
    close(s.look[1][0].weight, s.look_teacher[1][0].weight)
    out = s(rand(3,32,4,4), torch.tensor([[0,0,32,32]]*3), torch.ones(3,1,64,64))
    out['S'].sum().backward()
    assert s.look_teacher[1][0].weight.grad is None

# --- eq. 4, 5
@pytest.mark.parametrize('b,c,h,w', [(4,3,5,6), (1,1,1,1), (2,7,16,16)])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
def test_eq45_part_transfer(b, c, h, w, dtype):
    s,t = rand(b,c,h,w, seed=1, dtype=dtype),rand(b,c,h,w, seed=2, dtype=dtype)
    total = 0.
    for y in range(h):
        row = 0.
        for x in range(w):
            Ft = sum(sum(s[i,ch,y,x].item() for i in range(b))/b for ch in range(c))/c
            Pt = sum(sum(t[i,ch,y,x].item() for i in range(b))/b for ch in range(c))/c
            row += math.sqrt((Pt-Ft)**2)
        total += row/w
    assert part_transfer_loss(s, t).item()==pytest.approx(total/h, abs=1e-5)

def test_part_transfer_detach_and_streams():
    s,t = rand(2,3,4,4, seed=1).requires_grad_(),rand(2,3,4,4, seed=2).requires_grad_()
    part_transfer_loss(s, t, detach=True).backward()
    assert t.grad is None and s.grad is not None
    part_transfer_loss(s, t).backward()
    assert t.grad is not None
    close(part_transfer_loss([(s,t),(s,s),(t,s)]), 2*part_transfer_loss(s, t))
    with pytest.raises(ValueError, match='Student maps'): part_transfer_loss(s, t[:1])

# --- eq. 6
@given(st.lists(st.floats(.01,8), min_size=1, max_size=5), st.floats(.2,3))
@settings(max_examples=30, deadline=None)
def test_eq6_hul(losses, sigma):
    u = UncertaintyWeights(len(losses))
    with torch.no_grad(): u.log_var.fill_(2*math.log(sigma))
    assert u([torch.tensor(o) for o in losses]).item()==pytest.approx(sum(o/sigma**2 for o in losses) + len(losses)*math.log(sigma), rel=1e-4, abs=1e-4)
    assert u.sigma[0].item()==pytest.approx(sigma, rel=1e-5) and u.weights[0].item()==pytest.approx(sigma**-2, rel=1e-5)

def test_hul_gradients_and_bad_number():
    u,L = UncertaintyWeights(2),torch.tensor([2.,.25], requires_grad=True)
    u(L).backward()
    close(L.grad, torch.ones(2)); close(u.log_var.grad, torch.tensor([.5-2., .5-.25]))
    with pytest.raises(ValueError, match='n=3'): u(torch.ones(3))

# --- eq. 7: batch hard
def literal_triplet(f, ids, margin):
    hinges = []
    for a in range(len(f)):
        d = [math.sqrt(sum((f[a][k].item()-f[j][k].item())**2 for k in range(f.shape[1]))) for j in range(len(f))]
        p = max(d[j] for j in range(len(f)) if ids[j]==ids[a])
        n = min(d[j] for j in range(len(f)) if ids[j]!=ids[a])
        hinges.append(max(0., margin+p-n))
    return sum(hinges)/len(hinges)

@settings(max_examples=25, deadline=None)
@given(st.integers(2,4), st.integers(1,4), st.integers(1,6), st.floats(0,2), st.integers(0,99))
def test_batch_hard_triplet(p, q, d, margin, seed):
    f,ids = rand(p*q, d, seed=seed),torch.arange(p).repeat_interleave(q)
    perm = torch.randperm(p*q, generator=torch.Generator().manual_seed(seed))
    expect = literal_triplet(f, ids.tolist(), margin)
    assert batch_hard_triplet(f, ids, margin).item()==pytest.approx(expect, abs=1e-4)
    assert batch_hard_triplet(f[perm], ids[perm], margin).item()==pytest.approx(expect, abs=1e-4)

def test_triplet_gradient_matches_finite_differences_and_is_finite_at_zero():
    ids = torch.tensor([0,0,1,1])
    f = rand(4,3, dtype=torch.float64).float().requires_grad_()
    g, = torch.autograd.grad(batch_hard_triplet(f, ids, 3.), f)
    for i in range(4):
        for k in range(3):
            e = torch.zeros(4,3); e[i,k] = 1e-2
            num = (literal_triplet(f+e, ids.tolist(), 3.) - literal_triplet(f-e, ids.tolist(), 3.))/2e-2
            assert g[i,k].item()==pytest.approx(num, abs=5e-3)
    z = torch.zeros(4,3, requires_grad=True)
    batch_hard_triplet(z, ids).backward()
    assert z.grad.isfinite().all()

def test_triplet_half_precision_is_computed_in_float32():
    f,ids = rand(8,64),torch.arange(4).repeat_interleave(2)
    with torch.autocast('cpu', dtype=torch.bfloat16): inside = batch_hard_triplet(f, ids)
    close(inside, batch_hard_triplet(f, ids)); assert inside.dtype==torch.float32

def test_triplet_with_one_identity_says_what_to_do():
    with pytest.raises(ValueError, match='at least two identities'): batch_hard_triplet(rand(4,3), torch.zeros(4).long())

def test_eq7_eq8_terms():
    feats,logits,ids = {j: rand(6,5,seed=i) for i,j in enumerate('GST')},{j: rand(6,3,seed=9+i) for i,j in enumerate('GST')},torch.tensor([0,0,1,1,2,2])
    lossf = ReIDLoss(margin=.7, label_smoothing=.1)
    total = lossf(dict(features=feats, logits=logits), ids)
    ce = sum(F.cross_entropy(o, ids, label_smoothing=.1) for o in logits.values())
    tri = sum(literal_triplet(f, ids.tolist(), .7) for f in feats.values())/3
    assert total.item()==pytest.approx(ce.item()+tri, abs=1e-4)
    with pytest.raises(TypeError, match='evaluation mode'): lossf(rand(6,5), ids)

# --- the fused distance
@settings(max_examples=20, deadline=None)
@given(st.integers(1,5), st.integers(1,5), st.lists(st.floats(.1,6), min_size=1, max_size=3))
def test_fused_inner_product_is_the_weighted_sum_of_cosines(q, g, lam):
    Q = [rand(q,4+i,seed=i) for i in range(len(lam))]; G = [rand(g,4+i,seed=9+i) for i in range(len(lam))]
    fused = fuse(Q, torch.tensor(lam))@fuse(G, torch.tensor(lam)).T
    for a in range(q):
        for b in range(g):
            expect = sum(l*F.cosine_similarity(Qj[a], Gj[b], dim=0).item() for l,Qj,Gj in zip(lam, Q, G))
            assert fused[a,b].item()==pytest.approx(expect, abs=1e-4)
