"What is written survives a full disk, a folder that cannot be written to, a kill; and what is read is looked at, never executed"
import json, os, platform, resource, subprocess, sys, time
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
import pytest, torch
from vehicle_reid.all import Gallery, PANet, ReIDDataLoaders, ReIDLearner, grabcut_masks, reid_learner, split_backbone, synth_veri
from vehicle_reid.files import write_atomic, write_json
from vehicle_reid.learner import Checkpoint
from vehicle_reid.parts import KeptParts

@pytest.fixture(scope='module')
def path(tmp_path_factory): return synth_veri(tmp_path_factory.mktemp('data')/'synth', n_ids=6, n_test=2, n_cams=3, n_workers=1)

@pytest.fixture(scope='module')
def dls(path): return ReIDDataLoaders.from_veri(path, size=64, p=3, k=2, num_workers=0)

def learner(dls, folder='.'):
    torch.manual_seed(0)
    return reid_learner(dls, 'resnet10t', pretrained=False, feat_dim=32, uniform=True, path=folder)

@contextmanager
def full(n):
    "The system refuses what would make a file longer than `n` bytes, as a full disk would"
    soft,hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with open(os.devnull, 'w') as o, redirect_stdout(o): # what is printed may go to a file, too
            resource.setrlimit(resource.RLIMIT_FSIZE, (n, hard))
            yield
    finally: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

def state(folder): return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob('*')) if p.is_file()}

# --- full

def writes(dls, out):
    "name → function of a number, by which what is written differs"
    def train(n): # the second epoch goes on from the first one's checkpoint, and replaces it
        learn = learner(dls, out)
        with learn.no_bar(), learn.no_logging(): learn.fit(n, cbs=Checkpoint(out/'run.ckpt'))
    return {'json': lambda n: write_json(out/'a.json', [n]*3000), 'network': lambda n: (l := learner(dls), l.model.log_var.data.add_(n), l.save_pretrained(out/'model')),
        'gallery': lambda n: Gallery(torch.full((600,64), float(n)), [f'{i}.jpg' for i in range(600)], None).save(out/'gallery'),
        'vectors': lambda n: learner(dls).gallery(dls.gallery_items.iloc[:4*n], folder=out/'vectors', piece=2, bs=2), 'checkpoint': train}

@pytest.mark.parametrize('what,limit', [('json',500), ('network',20_000), ('gallery',20_000), ('vectors',100), ('checkpoint',20_000)])
def test_full_disk_is_told_and_the_old_file_stays(dls, tmp_path, what, limit):
    write = writes(dls, tmp_path)[what]
    write(1)
    old = state(tmp_path)
    assert old
    with full(limit), pytest.raises(OSError, match='could not be written .*what was there is as it was. Free space'): write(2)
    assert old.items()<=state(tmp_path).items() and not [f for f in state(tmp_path) if f.endswith('.part')]
    write(2) # and with space again, it works
    assert not old.items()<=state(tmp_path).items()

def test_full_disk_while_masks_are_cut(path, tmp_path):
    paths = sorted((path/'image_train').glob('*.jpg'))[:8]
    with full(40), pytest.raises(OSError, match='could not be written'): grabcut_masks(paths, cache=tmp_path)
    assert not state(tmp_path)
    assert len(grabcut_masks(paths, cache=tmp_path).paths)==8

def test_full_disk_while_parts_are_kept(dls, tmp_path):
    torch.manual_seed(0); kept = KeptParts(PANet(6, 'resnet10t', pretrained=False), dls, tmp_path)
    paths = list(dls.train_items.path)[:5]
    with full(1000), pytest.raises(OSError, match='could not be written'): kept.fill(paths)
    assert not state(tmp_path) and len(state(kept.fill(paths).folder))==5

def test_folder_that_cannot_be_written_to(dls, tmp_path):
    (tmp_path/'a file').write_text('no folder')
    for bad in (tmp_path/'a file'/'x.json', Path('/proc')/'x.json'):
        with pytest.raises(OSError, match='x.json could not be written'): write_json(bad, {})
    with pytest.raises(OSError): learner(dls).save_pretrained(tmp_path/'a file'/'model')
    assert (tmp_path/'a file').read_text()=='no folder'

# --- killed

def test_killed_while_it_writes(tmp_path):
    "At twelve moments: the file is one of those that were written, whole; the next writer leaves no litter"
    code = "import sys; from vehicle_reid.files import write_json\nfor i in range(10**9): write_json(sys.argv[1], [i]*20000)"
    p = subprocess.Popen([sys.executable, '-c', code, str(tmp_path/'a.json')])
    while not (tmp_path/'a.json').exists(): time.sleep(.01)
    for i in range(12):
        time.sleep(.013*(i%5)+.02)
        p.kill(); p.wait()
        data = json.loads((tmp_path/'a.json').read_text())
        assert len(data)==20000 and len(set(data))==1
        p = subprocess.Popen([sys.executable, '-c', code, str(tmp_path/'a.json')])
        before = (tmp_path/'a.json').stat().st_mtime_ns
        while (tmp_path/'a.json').stat().st_mtime_ns==before: time.sleep(.01)
    p.kill(); p.wait()
    write_json(tmp_path/'a.json', 0)
    assert os.listdir(tmp_path)==['a.json']

def test_a_folder_whose_writer_was_killed_between_two_steps_comes_back(tmp_path):
    p = subprocess.Popen([sys.executable, '-c', '']); p.wait() # a process that is no more
    (tmp_path/f'.net.{platform.node()}-{p.pid}-old123.part').mkdir()
    (tmp_path/f'.net.{platform.node()}-{p.pid}-old123.part'/'w').write_text('old')
    def fails(f): raise ValueError('on purpose')
    with pytest.raises(ValueError, match='on purpose'): write_atomic(tmp_path/'net', fails)
    assert os.listdir(tmp_path)==['net'] and (tmp_path/'net'/'w').read_text()=='old'

# --- hostile or damaged

class Evil:
    "Its pickle makes the file `mark` when it is loaded"
    def __init__(self, mark): self.mark = mark
    def __reduce__(self): return os.mkdir, (str(self.mark),)

def test_no_pickle_is_executed(dls, tmp_path):
    mark = tmp_path/'executed'
    learn = learner(dls, tmp_path); folder = learn.save_pretrained(tmp_path/'model')
    evil = tmp_path/'models'/'evil.pth'; evil.parent.mkdir(exist_ok=True)
    torch.save({'model': Evil(mark), 'opt': {}}, evil)
    for name in ('pytorch_model.bin','model.pth','model.pkl'): (folder/'pmnet'/name).write_bytes(evil.read_bytes())
    assert len(ReIDLearner.from_pretrained(folder, dls).embed(dls.gallery_items.iloc[:2]))==2
    for use in (lambda: learn.load('evil'), lambda: split_backbone('resnet10t', pretrained=str(evil)),
            lambda: learn.fit(1, cbs=Checkpoint(evil))):
        with pytest.raises(Exception): use()
        assert not mark.exists()
    torch.load(evil, weights_only=False) # the trap is a real one
    assert mark.exists()

@pytest.mark.parametrize('harm', [lambda b: b[:len(b)//2], lambda b: b'', lambda b: b'\xff'*64+b[64:], lambda b: (2**60).to_bytes(8,'little')+b[8:]])
def test_damaged_weights_are_told(dls, tmp_path, harm):
    f = learner(dls).save_pretrained(tmp_path/'model')/'pmnet'/'model.safetensors'
    f.write_bytes(harm(f.read_bytes()))
    with pytest.raises((RuntimeError,OSError,ValueError), match=r'model\.safetensors.*(damaged|Build)'): ReIDLearner.from_pretrained(tmp_path/'model', dls)
