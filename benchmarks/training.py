"A mentored training step: parts kept on disk beside parts for nothing and parts found anew; the Learner beside a plain PyTorch loop; GrabCut on one core and on all"
import os, tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
import torch
from fastai.callback.core import Callback, CancelFitException
from fastai.torch_core import set_seed
from _bench import Case, main, once
from vehicle_reid.data import ReIDDataLoaders
from vehicle_reid.grabcut import grabcut_mask, grabcut_masks
from vehicle_reid.learner import FusedAdam, reid_learner
from vehicle_reid.losses import ReIDLoss
from vehicle_reid.parts import PartMasks, uniform_parts
from vehicle_reid.pmnet import PMNet
from vehicle_reid.synth import synth_veri
from vehicle_reid.transfer import part_transfer_loss

SETS = {}
def images(scale):
    "Folder of a small drawn set, rendered once"
    n = dict(full=24, quick=16, tiny=8)[scale]
    if n not in SETS:
        SETS[n] = tempfile.TemporaryDirectory()
        synth_veri(Path(SETS[n].name)/'veri', n_ids=n, seed=0, size=128)
    return Path(SETS[n].name)/'veri'

def learner(scale):
    arch,size,p,k = dict(full=('resnet50',256,4,4), quick=('resnet10t',128,4,4), tiny=('resnet10t',64,2,2))[scale]
    set_seed(0)
    dls = ReIDDataLoaders.from_veri(images(scale), size=size, p=p, k=k)
    learn = reid_learner(dls, arch, pretrained=False, path=tempfile.mkdtemp())
    learn.panet.neck.bn.num_batches_tracked += 1 # as if it had been trained: what it finds does not matter here
    learn.recorder.train_metrics = False
    return learn

class Stop(Callback):
    "Ends training after n batches, and keeps their losses"
    order = 99
    def __init__(self, n): self.n,self.losses = n,[]
    def after_batch(self):
        self.losses.append(self.loss_grad.detach())
        self.n -= 1
        if not self.n: raise CancelFitException

class GivenParts(Callback):
    "Parts that cost nothing: the first batch's, again and again"
    order = PartMasks.order
    def __init__(self, parts): self.parts = parts
    def before_batch(self): self.learn.xb = (self.xb[0], self.parts)

STEPS = dict(full=4, quick=5, tiny=1)
def setup(scale):
    learn = learner(scale)
    x = torch.Tensor(learn.dls.train.one_batch()[0])
    given = learn.part_masks.parts(x.to(learn.dls.device), random=True)
    first = {k: v.clone() for k,v in learn.model.state_dict().items()}
    return dict(learn=learn, given=given, steps=STEPS[scale], masks=learn.part_masks, first=first)

def begin(d):
    "Every way trains from the same weights on the same batches, so that losses can be compared"
    d['learn'].model.load_state_dict(d['first']); d['learn'].opt = None
    set_seed(0)

def fit(d, parts):
    learn = d['learn']
    learn.remove_cbs([cb for cb in learn.cbs if isinstance(cb, (PartMasks,GivenParts,Stop))])
    stop = Stop(d['steps'])
    learn.add_cbs([parts, stop])
    begin(d)
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    return torch.stack(stop.losses)
def kept(d): d['masks'].fresh = False; return fit(d, d['masks'])
def anew(d): d['masks'].fresh = True; return fit(d, d['masks'])
def free(d): return fit(d, GivenParts(d['given']))
def finite(r):
    assert all(torch.isfinite(o).all() for o in r.values()), r
    return f"{len(next(iter(r.values())))} steps each; the parts differ, so the losses do"

def plain(d):
    "The same network, batches, losses and optimizer steps in a loop of a dozen lines"
    learn,losses = d['learn'],[]
    begin(d)
    net,loss_func = learn.model.train().to(memory_format=torch.channels_last),learn.loss_func
    net.log_var.requires_grad_()
    opt = torch.optim.Adam([{'params': [p for p in net.parameters() if p is not net.log_var]}, {'params': [net.log_var], 'weight_decay': 0.}], lr=learn.lr, weight_decay=learn.wd, fused=True)
    for x,y in learn.dls.train:
        out = net(torch.Tensor(x), d['given'])
        loss = loss_func(out, y) + part_transfer_loss(out['maps'])
        ids = torch.stack([loss_func.terms[f'id_{h}'] for h in net.heads])
        loss = loss - ids.sum() + ((-net.log_var).exp()*ids).sum() + net.log_var.sum()/2
        loss.backward(); opt.step(); opt.zero_grad()
        losses.append(loss.detach())
        if len(losses)==d['steps']: return torch.stack(losses)
def same_losses(r):
    a,b = r['ours, Learner'],r['plain PyTorch loop']
    torch.testing.assert_close(a[0], b[0], rtol=1e-6, atol=0)
    torch.testing.assert_close(a, b, rtol=.02, atol=0) # Adam's first steps follow signs, also those of gradients that are rounding errors
    return f'first loss equal, losses of {len(a)} steps within {((a-b)/b).abs().max():.1e} of each other'

def pictures(scale): return sorted((images(scale)/'image_train').glob('*.jpg'))[:dict(full=240, quick=48, tiny=2)[scale]]
def cut(n):
    def f(paths):
        with tempfile.TemporaryDirectory() as d: return [Path(o).read_bytes() for o in grabcut_masks(paths, cache=d, n_workers=n).paths]
    return f
def shared(paths):
    "One thread's work in as many processes as there are cores"
    with ProcessPoolExecutor(os.cpu_count(), get_context('fork')) as ex: list(ex.map(grabcut_mask, paths, chunksize=4))
def same_masks(r):
    a,b = (o for o in r.values() if o)
    assert a==b
    return f'{len(a)} masks, equal byte by byte'

def growth(quick):
    "A step grows with the vehicles by its classifiers alone"
    out = []
    for n in (100,1000,10000,50000):
        set_seed(0)
        net = PMNet(n, 'resnet10t' if quick else 'resnet50', pretrained=False).train()
        loss_func,opt = ReIDLoss(),FusedAdam(list(net.parameters()), lr=1e-3)
        size = 128 if quick else 256
        x,y,parts = torch.randn(16,3,size,size),torch.arange(16)//4,uniform_parts(torch.ones(16,1,size,size), 3)
        def step(_):
            out = net(x, parts)
            (loss_func(out, y) + part_transfer_loss(out['maps'])).backward(); opt.step(); opt.zero_grad()
        out.append(once('training step', step, None, calls=3, identities=n))
    return out

if __name__=='__main__':
    cores = os.cpu_count()
    main(Case('a step of mentored PMNet', setup, {'ours, parts kept': kept, 'parts given for free': free, 'parts found anew': anew}, 'parts given for free', finite, floor='parts given for free', memory='full'),
        Case('Learner and plain loop', setup, {'ours, Learner': free, 'plain PyTorch loop': plain}, 'plain PyTorch loop', same_losses, floor='plain PyTorch loop', memory='full'),
        Case('GrabCut', pictures, {f'ours, {cores} threads': cut(cores), 'one thread': cut(1), f'{cores} processes': shared}, 'one thread', same_masks, f'{cores} processes', memory='full'),
        growth=growth)
