"Same seed, same machine, same result, whatever the number of loader processes and of threads that cut masks"
import pytest, torch
from fastai.torch_core import set_seed
from vehicle_reid.all import ReIDDataLoaders, grabcut_masks, reid_learner, reid_tfms, synth_veri

WORKERS = (0, 1, 2)

@pytest.fixture(scope='module')
def path(tmp_path_factory): return synth_veri(tmp_path_factory.mktemp('data')/'synth', n_ids=10, n_test=4, n_cams=3, n_workers=1)

def loaders(path, n, **kw): return ReIDDataLoaders.from_veri(path, size=64, p=3, k=2, num_workers=n, batch_tfms=reid_tfms(occlusion=.3), **kw)
def same(xs): return all(torch.equal(a, b) for x in xs[1:] for a,b in zip(xs[0], x, strict=True))

def epochs(path, n, seed):
    "Images, identities and rows of two epochs, as training sees them"
    dls = loaders(path, n)
    assert dls.train.fake_l.num_workers==n
    set_seed(seed)
    return [o for _ in range(2) for x,y in dls.train for o in (torch.Tensor(x), torch.Tensor(y), torch.tensor(dls.train.rows))]

def test_batches(path):
    "Sampling, flips, crops, patches and erasing"
    runs = [epochs(path, n, 5) for n in WORKERS]
    assert same(runs) and len(runs[0])>=12
    assert not same([runs[0], epochs(path, 0, 6)]) # the seed is what decides

def test_synthetic_images(path, tmp_path):
    again = synth_veri(tmp_path/'again', n_ids=10, n_test=4, n_cams=3, n_workers=2)
    files = {p.relative_to(path): p.read_bytes() for p in path.rglob('*') if p.is_file()}
    assert files=={p.relative_to(again): p.read_bytes() for p in again.rglob('*') if p.is_file()} and len(files)>50

def test_masks(path, tmp_path):
    paths = sorted((path/'image_train').glob('*.jpg'))
    made = [[p.read_bytes() for p in grabcut_masks(paths, cache=tmp_path/str(n), n_workers=n).paths] for n in (1, 2, 3)]
    assert made[0]==made[1]==made[2] and len(set(made[0]))>len(paths)//2

def trained(path, n, seed, out, cache):
    dls = loaders(path, n)
    set_seed(seed)
    learn = reid_learner(dls, 'resnet10t', pretrained=False, feat_dim=32, path=out)
    with learn.no_bar(), learn.no_logging(): learn.fit_two_stage(1, 2, folder=out/f'{n}-{seed}', cache=cache, panet_bs=8)
    return learn

def test_training_and_evaluation(path, tmp_path):
    "Both stages, PANet's boxes kept on disk included; then vectors and metrics"
    learners = [trained(path, n, 3, tmp_path, tmp_path/'masks') for n in WORKERS]
    for net in ('panet','model'): assert same([list(getattr(l, net).state_dict().values()) for l in learners]), net
    assert same([[l.embed(l.dls.gallery_items)] for l in learners])
    scores = [dict(l.evaluate()) for l in learners]
    assert scores[0]==scores[1]==scores[2] and learners[0].evaluate(rerank=True).equals(learners[2].evaluate(rerank=True))
    other = trained(path, 0, 4, tmp_path, tmp_path/'masks')
    assert not same([list(l.model.state_dict().values()) for l in (learners[0], other)])
