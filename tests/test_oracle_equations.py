"Eq. 1-8, fixed weights, the crop and the masked pooling against loops over single numbers: values and gradients, four precisions, shapes down to one"
import pytest, torch
from hypothesis import example, given, settings, strategies as st
from fastai.callback.core import Callback
from vehicle_reid.all import MultiScaleAttention, ReIDDataLoaders, UncertaintyWeights, batch_hard_triplet, channel_recalibration, part_transfer_loss, reid_learner, synth_veri
from vehicle_reid.losses import ReIDLoss
from vehicle_reid.streams import PartStream, crop_resize, mask_max_pool

f64,f32,f16,bf16 = dtypes = torch.float64,torch.float32,torch.float16,torch.bfloat16
tols = {f64:2e-5, f32:2e-5, f16:4e-3, bf16:3e-2}
few,kinds,side = st.integers(1,3),st.sampled_from(dtypes),st.integers(1,5)
def rand(*shape, seed=0, dtype=f32): return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
def leaf(*shape, seed=0, dtype=f32): return rand(*shape, seed=seed, dtype=dtype).requires_grad_()
def table(f, *shape): return torch.stack([f(*i.tolist()) for i in torch.cartesian_prod(*map(torch.arange, shape)).view(-1, len(shape))]).view(shape)

def agree(fast, slow, *xs, tol=2e-5):
    "Values, and gradients of one random sum of them; returns the latter"
    torch.testing.assert_close(fast.double(), slow, atol=tol, rtol=tol)
    w = rand(1, *slow.shape, seed=7, dtype=f64)[0]
    ours,theirs = (torch.autograd.grad((o.double()*w).sum(), xs, retain_graph=True) for o in (fast,slow))
    for a,b in zip(ours, theirs): torch.testing.assert_close(a.double(), b.double(), atol=tol, rtol=tol)
    return ours

def top(v):
    "The largest number of a list. Where several are equal, their mean: the same value, and the gradient is PyTorch's amax's, spread evenly over them"
    best = max(v); ties = [o.double() for o in v if o==best]; return sum(ties)/len(ties)

# --- eq. 1, 2
def literal_recalibration(X, t):
    C,H,W = X.shape; rows = [[X[c,y,x] for y in range(H) for x in range(W)] for c in range(C)]
    def softmax(v):
        e = [(o-max(v).detach()).exp() for o in v]
        return [o/sum(e) for o in e]
    G = [softmax([sum(a*b for a,b in zip(rows[i], rows[j]))/t for j in range(C)]) for i in range(C)]
    return torch.stack([torch.stack(softmax([sum(G[i][j]*rows[j][p] for j in range(C)) for p in range(H*W)])) for i in range(C)]).view(C,H,W)

@settings(max_examples=24)
@given(few, st.integers(1,4), few, few, st.sampled_from([.5,1.,4.]), st.booleans(), st.booleans(), kinds, st.integers(0,99))
@example(2, 1, 3, 2, 1., False, True, f32, 0) # one channel
@example(2, 4, 1, 1, 1., True, False, f16, 0) # one pixel
def test_eq1_eq2(b, c, h, w, t, fused, relative, dtype, seed):
    X = leaf(b, c, h, w, seed=seed, dtype=dtype)
    def slow(x): return literal_recalibration(x, t*(sum(v**2 for v in x.flatten())/c if relative else 1))
    agree(channel_recalibration(X, t, fused, relative), torch.stack([slow(x) for x in X.double()]), X, tol=tols[dtype])

@pytest.mark.parametrize('dtype', dtypes)
def test_eq1_eq2_constant_channels(dtype):
    X = rand(1,3,2,3, dtype=dtype); X[0,1],X[0,2] = 2.,0.
    X.requires_grad_(); agree(channel_recalibration(X), literal_recalibration(X.double()[0], 1.)[None], X, tol=tols[dtype])
    torch.testing.assert_close(channel_recalibration(torch.full((1,3,2,3), 5., dtype=dtype)), torch.full((1,3,2,3), 1/6))

# --- eq. 3, both masks convolved by hand
def literal_conv(x, conv, d=1):
    (c,h,w),k = x.shape,conv.weight.shape[-1]; r = d*(k//2)
    z = torch.zeros(c, h+2*r, w+2*r, dtype=x.dtype); z[:,r:r+h,r:r+w] = x
    out = table(lambda o,y,x: (conv.weight[o].double()*z[:, y:y+2*r+1:d, x:x+2*r+1:d]).sum(), len(conv.weight), h, w)
    return out if conv.bias is None else out + conv.bias.double()[:,None,None]

def literal_conv_bn(X, block, d=1):
    "A whole batch: in training its own mean and biased variance count, in evaluation the running ones"
    conv,bn,_ = block; X = torch.stack([literal_conv(x, conv, d) for x in X])
    def norm(o, m, v, g, b):
        n = o.numel()
        if block.training: m = sum(o.flatten())/n; v = sum((i-m)**2 for i in o.flatten())/n
        return ((o-m)/(v+bn.eps).sqrt()*g + b).clamp(min=0)
    return torch.stack([norm(*o) for o in zip(X.unbind(1), *(o.double() for o in (bn.running_mean, bn.running_var, bn.weight, bn.bias)))], 1)

def literal_mam(P, m):
    b,c,h,w = P.shape; (one,_,two),(wide,narrow,last) = m.channel.mlp,m.spatial.fuse
    def mlp(v): return literal_conv(literal_conv(torch.stack(v)[:,None,None], one).clamp(min=0), two).flatten()
    def sigmoid(z): return 1/(1+(-z).exp())
    C = [sigmoid(mlp([sum(k.flatten())/(h*w) for k in p]) + mlp([top([*k.flatten()]) for k in p])) for p in P]
    X = torch.cat([literal_conv_bn(P, s, d) for s,d in zip(m.spatial.scales, (1,2,3))], 1)
    S = [sigmoid(literal_conv(x, last)[0]) for x in literal_conv_bn(literal_conv_bn(X, wide), narrow)]
    return table(lambda i,k,y,x: (C[i][k]*S[i][y,x] + 1)*P[i,k,y,x], b, c, h, w)

def mam(c, dtype, train):
    torch.manual_seed(c); m = MultiScaleAttention(c).train(train)
    for o in m.modules():
        if isinstance(o, torch.nn.BatchNorm2d): o.running_mean.normal_(); o.running_var.uniform_(.5, 2); o.weight.data.uniform_(.5, 2); o.bias.data.normal_()
    return m.to(dtype)

@settings(max_examples=30)
@given(few, st.integers(1,5), st.integers(1,4), st.integers(1,4), st.booleans(), st.sampled_from([None,0.,2.]), st.sampled_from([f64,f32]), st.integers(0,99))
@example(2, 5, 1, 1, True, None, f64, 0) # one pixel
@example(1, 1, 2, 3, False, None, f32, 0) # one channel
@example(1, 1, 1, 1, False, 0., f64, 0) # one number
@example(1, 20, 2, 2, True, 2., f64, 0) # a hidden layer wider than its least
def test_eq3(b, c, h, w, train, constant, dtype, seed):
    "In training and in evaluation, gradients of input and parameters; one channel may be constant, as a dead ReLU leaves it"
    m,P = mam(c, dtype, train and b*h*w>1),rand(b, c, h, w, seed=seed, dtype=dtype) # one number has no variance: PyTorch refuses it in training
    if constant is not None: P[:,0] = constant
    P.requires_grad_(); grad,*_ = agree(m(P), literal_mam(P.double(), m), P, *m.parameters(), tol=1e-8 if dtype==f64 else 2e-4)
    assert grad[:,0].all()

@settings(max_examples=12)
@given(few, st.integers(1,5), st.integers(1,4), st.integers(1,4), st.booleans(), st.sampled_from([f16,bf16]), st.integers(0,99))
def test_eq3_in_half_precision(b, c, h, w, train, dtype, seed):
    "Gradients in evaluation: in training the variance of two or three rounded numbers may be any"
    m,P = mam(c, dtype, train and b*h*w>1),leaf(b, c, h, w, seed=seed, dtype=dtype); out = m(P)
    assert out.dtype==dtype; torch.testing.assert_close(out.double(), literal_mam(P.double(), m), atol=2*tols[dtype], rtol=2*tols[dtype])
    if not m.training: agree(out, literal_mam(P.double(), m), P, *m.parameters(), tol=4*tols[dtype])

# --- crop and resize, MMP
def literal_stretch(x, box, h, w):
    "Cell centres spread over the box, bilinear, held at its border: one map (H,W)"
    x0,y0,x1,y1 = box
    def taps(i, n, lo, hi):
        t = min(max(lo + (i+.5)*(hi-lo)/n - .5, lo), hi-1); a = min(int(t), hi-1)
        return (a, 1-(t-a)), (min(a+1, hi-1), t-a)
    return table(lambda i,j: sum(u*v*x[y,k] for y,u in taps(i, h, y0, y1) for k,v in taps(j, w, x0, x1)), h, w)

def box(data, H, W):
    x0,y0 = data.draw(st.integers(0,W-1)),data.draw(st.integers(0,H-1))
    return [x0, y0, data.draw(st.integers(x0+1,W)), data.draw(st.integers(y0+1,H))]

@settings(max_examples=30)
@given(few, few, side, side, side, side, st.booleans(), kinds, st.data())
def test_crop_resize(b, c, H, W, h, w, own_size, dtype, data):
    boxes,F = [box(data, H, W) for _ in range(b)],leaf(b,c,H,W, seed=H*W, dtype=dtype)
    if own_size: h,w = H,W
    slow = torch.stack([torch.stack([literal_stretch(c, b, h, w) for c in f]) for f,b in zip(F.double(), boxes)])
    out = crop_resize(F, torch.tensor(boxes), None if own_size else (h,w))
    assert out.dtype==dtype; agree(out, slow, F, tol=tols[dtype])

@settings(max_examples=40)
@given(few, few, side, side, st.sampled_from([0.,.25,.5,.75,1.]), st.booleans(), kinds, st.integers(0,99))
@example(2, 1, 1, 1, 0., True, f16, 0)
def test_mask_max_pool(b, c, h, w, share, negative, dtype, seed):
    "Numbers that no precision rounds and of which none is equal to another"
    n,g = b*c*h*w,torch.Generator().manual_seed(seed)
    P = ((torch.randperm(n, generator=g) - (n if negative else n//2))).view(b,c,h,w).to(dtype).requires_grad_()
    mask = torch.where(torch.rand(b,1,h,w, generator=g)<share, .5, .4375).to(dtype) # ½ counts
    def largest(i, ch):
        inside = [P[i,ch,y,x] for y in range(h) for x in range(w) if mask[i,0,y,x]>=.5] or [*P[i,ch].flatten()]
        return top(inside)
    agree(mask_max_pool(P, mask), table(largest, b, c), P, tol=0)

@settings(max_examples=30)
@given(few, few, side, side, st.sampled_from([0.,.5,1.]), st.integers(1,3), kinds, st.integers(0,99))
@example(2, 2, 3, 3, .5, 1, f32, 0) # all zeros: what a dead ReLU leaves
def test_mask_max_pool_of_ties(b, c, h, w, share, levels, dtype, seed):
    "Cells as large as the largest share its gradient evenly (amax's rule): inside the mask alone, or over the map where the mask is empty"
    g = torch.Generator().manual_seed(seed); P = torch.randint(levels, (b,c,h,w), generator=g).to(dtype).requires_grad_()
    inside = torch.rand(b,1,h,w, generator=g)<share; out,up = mask_max_pool(P, inside.to(dtype)),1+torch.rand(b,c, generator=g).to(dtype)
    grad, = torch.autograd.grad(out, P, up)
    for i in range(b):
        on = inside[i,0] if inside[i,0].any() else torch.ones(h,w).bool()
        for k in range(c):
            best = max(P[i,k,y,x].item() for y,x in on.nonzero()); tied = on & (P[i,k]==best)
            assert out[i,k]==best and not grad[i,k][~tied].any()
            torch.testing.assert_close(grad[i,k][tied], (up[i,k]/tied.sum()).expand(int(tied.sum())))
            torch.testing.assert_close(grad[i,k].double().sum(), up[i,k].double(), atol=0, rtol=tols[dtype]) # all of it, as one largest cell would get

@settings(max_examples=20)
@given(st.integers(1,4), st.integers(1,4), st.data())
def test_teacher_sees_the_cells_its_box_touches(H, W, data):
    "Boxes in pixels, four a cell, that need not fit the cells: map and mask are cut at the same cells"
    px = [box(data, 4*H, 4*W) for _ in range(2)]
    s,X,mask = PartStream(3, 2).eval(),rand(2,3,H,W),(rand(2,1,4*H,4*W, seed=1)>0).float()
    cells = [(x0//4, y0//4, -(-x1//4), -(-y1//4)) for x0,y0,x1,y1 in px]; F = s.reduce(X)
    P = torch.stack([torch.stack([literal_stretch(c, b, H, W) for c in f]) for f,b in zip(F, cells)])
    M = torch.stack([literal_stretch(m[0], [4*o for o in b], H, W) for m,b in zip(mask, cells)])
    T,out = s.look(P),s(X, torch.tensor(px), mask); assert out['S'].shape==out['T'].shape==(2,2)
    for i in range(2):
        for c in range(2): assert out['T'][i,c].item()==pytest.approx(max([t for t,m in zip(T[i,c].flatten(), M[i].flatten()) if m>=.5] or T[i,c].flatten()).item(), abs=1e-5)

# --- eq. 4, 5
def literal_transfer(S, T):
    b,c,h,w = S.shape
    def mean(X, y, x): return sum(sum(X[i,ch,y,x] for i in range(b))/b for ch in range(c))/c
    return sum(sum(((mean(T, y, x)-mean(S, y, x))**2).sqrt() for x in range(w))/w for y in range(h))/h

@settings(max_examples=24)
@given(few, few, few, few, few, kinds, st.integers(0,99))
@example(1, 1, 1, 1, 1, bf16, 0)
def test_eq4_eq5(K, b, c, h, w, dtype, seed):
    pairs = [(leaf(b,c,h,w, seed=2*(seed+k)+1, dtype=dtype), leaf(b,c,h,w, seed=2*(seed+k), dtype=dtype)) for k in range(K)]
    agree(part_transfer_loss(pairs), sum(literal_transfer(s.double(), t.double()) for s,t in pairs), *(o for p in pairs for o in p), tol=tols[dtype])

@pytest.mark.parametrize('dtype', dtypes)
def test_eq4_eq5_of_equal_maps(dtype):
    s,t = (torch.full((2,3,2,2), 2., dtype=dtype, requires_grad=True) for _ in range(2))
    loss = part_transfer_loss(s, t); loss.backward()
    assert loss==0 and not s.grad.any() and not t.grad.any()

# --- eq. 6
@settings(max_examples=24)
@given(st.integers(1,5), kinds, st.booleans(), st.integers(0,99))
def test_eq6(n, dtype, as_list, seed):
    u,L = UncertaintyWeights(n),rand(n, seed=seed).abs().to(dtype).requires_grad_()
    u.log_var.data = rand(n, seed=seed+1)
    sigma = [(o.double()/2).exp() for o in u.log_var]
    agree(u([*L] if as_list else L), sum(o.double()/s**2 for o,s in zip(L, sigma)) + sum(s.log() for s in sigma), L, u.log_var, tol=tols[dtype])

# --- eq. 7
def literal_triplet(f, ids, margin):
    def dist(a, b): return sum((x-y)**2 for x,y in zip(a, b)).sqrt() if (a!=b).any() else a.sum()*0
    D = [[dist(a, b) for b in f] for a in f]; n = len(f)
    return sum((margin + max(D[a][j] for j in range(n) if ids[j]==ids[a]) - min(D[a][j] for j in range(n) if ids[j]!=ids[a])).clamp(min=0) for a in range(n))/n

@settings(max_examples=30)
@given(st.integers(2,3), st.integers(1,3), st.integers(1,4), st.floats(0,3), kinds, st.integers(0,99))
@example(2, 2, 1, .7, f32, 0) # features of one number
def test_batch_hard_triplet(p, q, d, margin, dtype, seed):
    f,ids = leaf(p*q, d, seed=seed, dtype=dtype),[i%p for i in range(p*q)]
    out = batch_hard_triplet(f, torch.tensor(ids), margin)
    assert out.dtype==f32; agree(out, literal_triplet(f.double(), ids, margin), f, tol=tols[dtype])

@pytest.mark.parametrize('dtype', [f16,bf16])
def test_large_half_features_do_not_overflow(dtype):
    f = (300*rand(4,64)).to(dtype).requires_grad_(); batch_hard_triplet(f, torch.tensor([0,0,1,1])).backward() # a square alone is 90000
    assert f.grad.isfinite().all()

def literal_ce(logits, ids, eps=0.):
    n = logits.shape[1]
    def one(z, y): return sum(((1-eps)*(k==y) + eps/n)*(sum(o.exp() for o in z).log() - z[k]) for k in range(n))
    return sum(one(z, y) for z,y in zip(logits, ids))/len(ids)

@pytest.mark.parametrize('heads', ['GST', 'G', 'ST'])
@pytest.mark.parametrize('dtype', dtypes)
@pytest.mark.parametrize('eps', [0.,.1])
@pytest.mark.parametrize('ids,d,n', [([0,2,0,2],3,5), ([1,0,2,2,1,0],1,3), ([0,1],4,2)])
def test_eq7_and_id_losses(heads, dtype, eps, ids, d, n):
    feats,logits = ({j: leaf(len(ids),k, seed=i+3*k, dtype=dtype) for i,j in enumerate(heads)} for k in (d,n))
    slow = sum(literal_ce(o.double(), ids, eps) for o in logits.values()) + sum(literal_triplet(f.double(), ids, .7) for f in feats.values())/len(heads)
    agree(ReIDLoss(label_smoothing=eps)(dict(features=feats, logits=logits), torch.tensor(ids)), slow, *feats.values(), *logits.values(), tol=tols[dtype])

# --- eq. 8, and with fixed weights instead of HUL's (Table VI), as the learner differentiates it
@pytest.fixture(scope='module')
def dls(tmp_path_factory): return ReIDDataLoaders.from_veri(synth_veri(tmp_path_factory.mktemp('data')/'synth', n_ids=6, n_test=3, n_cams=2, n_workers=1), size=64, p=2, k=2, num_workers=0)

class Eq8(Callback):
    "Behind the callbacks that make the loss: the literal one on the same tensors, its ID terms weighed by HUL or by the numbers given"
    order,n = 5,0
    def __init__(self, weights=None, detach=False): self.weights,self.detach = weights,detach
    def after_loss(self):
        if not self.training or self.n: return
        self.n,p,s,ids = 1,self.pred,self.model.log_var,self.y.tolist()
        CE = [literal_ce(o.double(), ids) for o in p['logits'].values()]
        if self.weights: J_ID = sum(w*o for w,o in zip(self.weights, CE, strict=True))
        else: sigma = [(o.double()/2).exp() for o in s]; J_ID = sum(o/v**2 for o,v in zip(CE, sigma)) + sum(v.log() for v in sigma)
        J_Tri = sum(literal_triplet(f.double(), ids, .7) for f in p['features'].values())/len(CE)
        L_PT = sum(literal_transfer(s.double(), t.double().detach() if self.detach else t.double()) for s,t in p['maps'])
        slow,params = J_ID + J_Tri + L_PT,[o for o in self.model.parameters() if o.requires_grad]
        agree(self.loss_grad, slow, *p['features'].values(), *p['logits'].values(), *(o for m in p['maps'] for o in m), *([] if self.weights else [s]), tol=1e-4)
        assert self.loss==self.loss_grad and s.requires_grad==(not self.weights)
        self.want = list(zip(params, torch.autograd.grad(slow, params, retain_graph=True)))

    def before_step(self):
        "What the optimizer is given"
        if self.n!=1: return
        self.n = 2
        for p,g in self.want: torch.testing.assert_close(p.grad, g, atol=1e-4, rtol=1e-3)

@pytest.mark.parametrize('K,half,detach', [(1,False,False), (2,False,True), (2,True,False), (3,False,False)])
@pytest.mark.filterwarnings('ignore:PANet has not been trained')
def test_eq8(dls, tmp_path, monkeypatch, K, half, detach):
    "`transfer='detach'`: as if the Teachers' maps were constants. bfloat16 also on a CPU that only imitates it, where training would leave it out"
    monkeypatch.setattr('vehicle_reid.learner.has_fast_bf16', lambda device=None: True); torch.manual_seed(0)
    learn = reid_learner(dls, 'resnet10t', pretrained=False, n_parts=K, feat_dim=12, path=tmp_path, transfer='detach' if detach else True)
    learn.model.log_var.data = torch.tensor([.5,-.4,.3]); cb = Eq8(detach=detach)
    if half: learn.to_bf16()
    cast = []; learn.model.register_forward_pre_hook(lambda m,_: cast.append(torch.is_autocast_enabled(next(m.parameters()).device.type)))
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-4, cbs=cb)
    assert cb.n==2 and cast[0]==half

@pytest.mark.parametrize('weights,kw', [((2,1,1), {}), ((.5,3,1.5), {}), ((4,.25), dict(teachers=False)), ((1,5), dict(students=False))])
def test_fixed_weights(dls, tmp_path, weights, kw):
    "Σ w_j·L_ID_j + mean of the triplets + L_PT; at inference the same weights are λ"
    torch.manual_seed(0)
    learn = reid_learner(dls, 'resnet10t', pretrained=False, uniform=True, feat_dim=12, loss_weights=weights, path=tmp_path, **kw); cb = Eq8(weights)
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-4, cbs=cb)
    assert cb.n==2; torch.testing.assert_close(learn.model.weights, torch.tensor(weights).float())
