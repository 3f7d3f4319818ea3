"Long work is killed, for real (SIGKILL) and at different moments, and given again: nothing finished is repeated, and the end is that of an unbroken run"
import os, signal, subprocess, sys, time
import pandas as pd, pytest, torch
from safetensors.torch import load_file
from vehicle_reid.all import ReIDDataLoaders, reid_learner, synth_veri
from vehicle_reid.cli import images_in
from vehicle_reid.gallery import _in_pieces, item_table

START = '''
import sys, torch, warnings; warnings.simplefilter('ignore'); torch.set_num_threads(1)
from pathlib import Path
from fastai.torch_core import set_seed
from vehicle_reid.all import *
data,out = map(Path, sys.argv[1:])
'''
GRABCUT = START+'''
paths = list(read_veri(data/'veri').path)
for m in grabcut_masks(paths, cache=out/'masks', n_workers=2): print(m)
'''
TRAIN = START+'''
dls = ReIDDataLoaders.from_veri(data/'veri', size=64, p=3, k=2, num_workers=0)
set_seed(7); learn = reid_learner(dls, 'resnet10t', pretrained=False, feat_dim=32, path=out)
with learn.no_bar(), learn.no_logging(): learn.fit_two_stage(3, 4, folder=out/'run', cache=data/'masks', panet_bs=8)
'''

@pytest.fixture(scope='module')
def data(tmp_path_factory):
    d = tmp_path_factory.mktemp('data')
    synth_veri(d/'veri', n_ids=8, n_test=3, n_cams=3, n_workers=1)
    dls = ReIDDataLoaders.from_veri(d/'veri', size=64, p=3, k=2, num_workers=0)
    torch.manual_seed(0); reid_learner(dls, 'resnet10t', pretrained=False, feat_dim=32, uniform=True).save_pretrained(d/'model')
    return d

def start(code, *args): return subprocess.Popen([sys.executable, '-c', code, *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, env={**os.environ, 'OMP_NUM_THREADS': '1'})

def whole(code, *args):
    out,err = (p := start(code, *args)).communicate(timeout=300)
    assert p.returncode==0, err[-2000:]
    return out

def killed(code, *args, when):
    "Kill the process and its children as soon as `when()` is true, which must come before its end"
    p = start(code, *args)
    while not when():
        assert p.poll() is None, ('ended before', p.communicate()[1][-2000:])
        time.sleep(.005)
    os.killpg(p.pid, signal.SIGKILL)
    p.communicate()
    assert p.returncode==-signal.SIGKILL

def files(folder, pattern='*'): return {f: (f.read_bytes(), f.stat().st_mtime_ns) for f in sorted(folder.glob(pattern)) if f.is_file() and not f.name.endswith('.part')}
def names(folder): return sorted(str(f.relative_to(folder)) for f in folder.rglob('*') if f.is_file())

# --- masks

def test_grabcut(data, tmp_path):
    whole(GRABCUT, data, tmp_path/'whole')
    cache,seen = tmp_path/'cut'/'masks',{}
    for n in (1, 5, 17):
        killed(GRABCUT, data, tmp_path/'cut', when=lambda: len(files(cache, '*.png'))>=n+len(seen))
        now = files(cache, '*.png')
        assert all(now[f]==o for f,o in seen.items()) # finished work is not done again
        seen = now
    whole(GRABCUT, data, tmp_path/'cut')
    end = files(cache, '*.png')
    assert all(end[f]==o for f,o in seen.items())
    assert {f.name: o[0] for f,o in end.items()}=={f.name: o[0] for f,o in files(tmp_path/'whole'/'masks', '*.png').items()}
    assert names(cache)==names(tmp_path/'whole'/'masks') # and no litter

# --- vectors

EMBED = 'import sys; from vehicle_reid.cli import main; sys.exit(main(sys.argv[1:]))'

def test_embed(data, tmp_path):
    args = lambda out: ('embed', data/'model', '--images', data/'veri'/'image_test', '--out', out, '--piece', 2, '--batch', 2)
    whole(EMBED, *args(tmp_path/'whole'))
    out,seen = tmp_path/'cut',{}
    for n in (1, 2):
        killed(EMBED, *args(out), when=lambda: len(files(out/'pieces'))>=n+len(seen))
        now = files(out/'pieces')
        assert seen.items()<=now.items() and not (out/'features.safetensors').exists()
        seen = now
    bad = sorted(seen)[0]
    bad.write_bytes(bad.read_bytes()[:-9]+b'damaged..') # found out, and made again
    whole(EMBED, *args(out))
    assert (out/'features.safetensors').read_bytes()==(tmp_path/'whole'/'features.safetensors').read_bytes()
    assert names(out)==names(tmp_path/'whole') and len(names(out))==2

def test_pieces_of_other_images_or_another_network_are_not_taken(data, tmp_path):
    dls = ReIDDataLoaders.from_veri(data/'veri', size=64, p=3, k=2, num_workers=0)
    paths = images_in(data/'veri'/'image_test')[:6]
    def learner(seed): torch.manual_seed(seed); return reid_learner(dls, 'resnet10t', pretrained=False, feat_dim=32, uniform=True)
    a,b = learner(0),learner(1)
    def pieces(learn, paths, **kw):
        f = _in_pieces(learn, item_table(paths), None, tmp_path/'pieces', 2, 2)
        return f,files(tmp_path/'pieces')
    f,one = pieces(a, paths)
    assert torch.allclose(f, a.embed(paths), atol=1e-6) and len(one)==3
    g,two = pieces(b, paths)
    assert torch.allclose(g, b.embed(paths), atol=1e-6) and not set(one)&set(two) and not torch.allclose(f, g, atol=1e-3)
    h,three = pieces(b, paths[:2]+paths[:1]+paths[3:])
    assert torch.allclose(h, b.embed(paths[:2]+paths[:1]+paths[3:]), atol=1e-6) and {k: two[k] for k in set(two)&set(three)}=={k: three[k] for k in set(two)&set(three)} and len(set(two)&set(three))==2

# --- both stages

STAGES = {'in stage 1': lambda run: (run/'panet.ckpt').exists(), 'between': lambda run: (run/'panet'/'model.safetensors').exists(), 'in stage 2': lambda run: (run/'pmnet.ckpt').exists()}

@pytest.fixture(scope='module')
def unbroken(data, tmp_path_factory):
    out = tmp_path_factory.mktemp('unbroken')
    whole(TRAIN, data, out)
    return out/'run'

@pytest.mark.parametrize('moments', [['in stage 1'], ['between','in stage 2']])
def test_two_stages(data, unbroken, tmp_path, moments):
    run = tmp_path/'run'
    for m in moments: killed(TRAIN, data, tmp_path, when=lambda: STAGES[m](run))
    log = run/'panet.csv'
    made = log.stat().st_mtime_ns if log.exists() else None
    assert (made is None)==('in stage 1' in moments)
    whole(TRAIN, data, tmp_path)
    assert made in (None, log.stat().st_mtime_ns) # a finished stage is not trained again
    for net in ('panet','pmnet'):
        a,b = (load_file(o/net/'model.safetensors') for o in (unbroken, run))
        assert a.keys()==b.keys() and all(torch.equal(a[k], b[k]) for k in a), net
        pd.testing.assert_frame_equal(*(pd.read_csv(o/f'{net}.csv') for o in (unbroken, run)))
    assert [n for n in names(run) if not n.startswith('parts/')]==[n for n in names(unbroken) if not n.startswith('parts/')]
