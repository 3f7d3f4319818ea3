"A mentored training step: parts kept on disk beside parts for nothing and parts found anew; the Learner beside a plain PyTorch loop; GrabCut on one core and on all"
import os, tempfile
from pathlib import Path
import torch
from fastai.callback.core import Callback, CancelFitException
from fastai.torch_core import set_seed
from _bench import Case, main
from vehicle_reid.data import ReIDDataLoaders
from vehicle_reid.grabcut import grabcut_masks
from vehicle_reid.learner import reid_learner
from vehicle_reid.parts import PartMasks
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
    "Ends training after n batches"
    order = 99
    def __init__(self, n): self.n = n
    def after_batch(self):
        self.n -= 1
        if not self.n: raise CancelFitException

class GivenParts(Callback):
    "Parts that cost nothing: the first batch's, again and again"
    order = PartMasks.order
    def __init__(self, parts): self.parts = parts
    def before_batch(self): self.learn.xb = (self.xb[0], self.parts)

STEPS = dict(full=4, quick=8, tiny=1)
def setup(scale):
    learn = learner(scale)
    x = torch.Tensor(learn.dls.train.one_batch()[0])
    given = learn.part_masks.parts(x.to(learn.dls.device), random=True)
    return dict(learn=learn, given=given, steps=STEPS[scale], masks=learn.part_masks)

def fit(d, parts):
    learn = d['learn']
    learn.remove_cbs([cb for cb in learn.cbs if isinstance(cb, (PartMasks,GivenParts,Stop))])
    learn.add_cbs([parts, Stop(d['steps'])])
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
def kept(d): d['masks'].fresh = False; fit(d, d['masks'])
def anew(d): d['masks'].fresh = True; fit(d, d['masks'])
def free(d): fit(d, GivenParts(d['given']))

def plain(d):
    "The same network, batches, losses and optimizer steps in a loop of a dozen lines"
    learn,n = d['learn'],d['steps']
    net,loss_func = learn.model.train(),learn.loss_func
    if 'opt' not in d: d['opt'] = torch.optim.Adam(net.parameters(), lr=1e-3, weight_decay=5e-4)
    for x,y in learn.dls.train:
        out = net(torch.Tensor(x), d['given'])
        loss = loss_func(out, y) + part_transfer_loss(out['maps'])
        ids = torch.stack([loss_func.terms[f'id_{h}'] for h in net.heads])
        loss = loss - ids.sum() + ((-net.log_var).exp()*ids).sum() + net.log_var.sum()/2
        loss.backward(); d['opt'].step(); d['opt'].zero_grad()
        n -= 1
        if not n: break

def pictures(scale): return sorted((images(scale)/'image_train').glob('*.jpg'))[:dict(full=240, quick=80, tiny=2)[scale]]
def cut(n):
    def f(paths):
        with tempfile.TemporaryDirectory() as d: grabcut_masks(paths, cache=d, n_workers=n)
    return f

if __name__=='__main__':
    cores = os.cpu_count()
    main(Case('a step of mentored PMNet', setup, {'ours, parts kept': kept, 'parts given for free': free, 'parts found anew': anew}, 'parts given for free', floor='parts given for free', memory=False),
        Case('Learner and plain loop', setup, {'ours, Learner': free, 'plain PyTorch loop': plain}, 'plain PyTorch loop', floor='plain PyTorch loop', memory=False),
        Case('GrabCut', pictures, {f'ours, {cores} threads': cut(cores), 'one thread': cut(1)}, 'one thread', memory=False))
