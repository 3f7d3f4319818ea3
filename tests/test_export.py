"ONNX: the file gives what the learner gives, for real images, any number of them, every kind of network; and what cannot be exported is said before work"
import builtins
import numpy as np, pytest, torch
from PIL import Image
from vehicle_reid.all import Baseline, PMNet, ReIDDataLoaders, export_onnx, reid_learner, synth_veri
from vehicle_reid.cli import main

onnxruntime = pytest.importorskip('onnxruntime')

@pytest.fixture(scope='module')
def learn(tmp_path_factory):
    d = tmp_path_factory.mktemp('onnx')
    dls = ReIDDataLoaders.from_veri(synth_veri(d/'veri', n_ids=6, n_test=2, n_cams=3, n_workers=1), size=64, p=2, k=2, num_workers=0)
    torch.manual_seed(0)
    learn = reid_learner(dls, 'resnet10t', pretrained=False, feat_dim=32, path=d)
    learn.model.train()
    with torch.no_grad(): learn.model(torch.randn(8,3,64,64)) # the running means are not those of a fresh network
    return learn

def pixels(paths, size): return np.stack([np.asarray(Image.open(p).convert('RGB').resize((size,size), Image.Resampling.BILINEAR)) for p in paths])
def run(file, images): return onnxruntime.InferenceSession(file).run(None, {'images': images})[0]

def test_real_images_give_the_learners_vectors_whatever_their_number(learn, tmp_path):
    training = learn.model.training
    file,paths = learn.to_onnx(tmp_path/'a.onnx'),list(learn.dls.gallery_items.path[:7])
    assert learn.model.training==training
    want = learn.embed(paths).numpy()
    for n in (1, 2, 5, 7): assert np.abs(run(file, pixels(paths[:n], 64))-want[:n]).max()<1e-5
    assert not np.allclose(want[0], want[-1])

def test_the_order_is_the_evaluations(learn, tmp_path):
    file,q,g = learn.to_onnx(tmp_path/'a.onnx'),list(learn.dls.query_items.path[:4]),list(learn.dls.gallery_items.path[:20])
    d = run(file, pixels(q, 64))@run(file, pixels(g, 64)).T
    assert np.abs(d-(learn.embed(q)@learn.embed(g).T).numpy()).max()<1e-5

@pytest.mark.parametrize('net', [lambda: Baseline(5, 'resnet18', pretrained=False), lambda: PMNet(5, 'resnet10t', feat_dim=32, attention='se', pretrained=False),
    lambda: PMNet(5, 'resnet10t', feat_dim=32, attention='residual', share=False, pretrained=False), lambda: PMNet(5, 'resnet10t', feat_dim=32, teachers=False, students=False, pretrained=False)], ids=['baseline','se','residual','global'])
def test_other_networks(net, tmp_path):
    torch.manual_seed(1)
    net = net().eval()
    file = export_onnx(net, tmp_path/'n.onnx', 64)
    x = np.random.default_rng(0).integers(0, 256, (3,64,64,3), dtype=np.uint8)
    mean,std = torch.tensor([.485,.456,.406]).view(3,1,1),torch.tensor([.229,.224,.225]).view(3,1,1)
    with torch.no_grad(): want = net.embed((torch.tensor(x).permute(0,3,1,2)/255-mean)/std)
    assert np.abs(run(file, x)-want.numpy()).max()<1e-5

def test_what_the_file_says_of_itself(learn, tmp_path):
    s = onnxruntime.InferenceSession(learn.to_onnx(tmp_path/'a.onnx'))
    (i,),(o,) = s.get_inputs(),s.get_outputs()
    assert (i.name, i.type, i.shape[1:])==('images', 'tensor(uint8)', [64,64,3]) and isinstance(i.shape[0], str)
    assert o.name=='vectors' and o.shape[1]==learn.embed(learn.dls.gallery_items.path[:1]).shape[1]
    about = s.get_modelmeta().custom_metadata_map
    assert about['size']=='64' and 'do not normalise' in about['input'] and 'torch' in about['versions'] and str(tmp_path) not in str(about)

def test_a_file_that_disagrees_is_not_kept(learn, tmp_path):
    file = tmp_path/'a.onnx'
    file.write_bytes(b'the old one')
    with pytest.raises(ValueError, match='differs from PyTorch'): learn.to_onnx(file, tol=0.)
    assert file.read_bytes()==b'the old one' and [o.name for o in tmp_path.iterdir()]==['a.onnx']

def test_without_the_packages(learn, tmp_path, monkeypatch):
    real = builtins.__import__
    def gone(name, *a, **kw):
        if name=='onnxscript': raise ImportError('gone', name=name)
        return real(name, *a, **kw)
    monkeypatch.setattr(builtins, '__import__', gone)
    with pytest.raises(ImportError, match=r"onnxscript: pip install 'vehicle_reid\[onnx\]'"): learn.to_onnx(tmp_path/'a.onnx')

def test_the_command(learn, tmp_path, capsys):
    learn.save_pretrained(tmp_path/'model')
    assert main(['export', str(tmp_path/'model'), '--out', str(tmp_path/'a.onnx')])==0
    assert 'normalised inside' in capsys.readouterr().out
    paths = list(learn.dls.gallery_items.path[:2])
    assert np.abs(run(tmp_path/'a.onnx', pixels(paths, 64))-learn.embed(paths).numpy()).max()<1e-5
    assert main(['export', str(tmp_path), '--out', str(tmp_path/'b.onnx')])==1 and 'holds no reid.json' in capsys.readouterr().err
