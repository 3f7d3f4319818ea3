"Backbones, PANet, PMNet: shapes, rows of the tables, what inference runs, saving, bad input"
import json, re, subprocess, sys
from pathlib import Path
import pytest, timm, torch
from vehicle_reid.backbone import split_backbone
from vehicle_reid.panet import PANet, PANetLoss
from vehicle_reid.pmnet import Baseline, PMNet

def parts(b, k=3, s=64): return torch.tensor([[0,i*s//k,s,(i+1)*s//k] for i in range(k)]).expand(b,k,4), torch.ones(b,k,s,s)

@pytest.mark.parametrize('arch', ['resnet10t', 'seresnet18' if 'seresnet18' in timm.list_models() else 'resnet18', 'convnext_atto', 'regnetx_002', 'mobilenetv3_small_050'])
def test_backbone_has_stride_16_and_a_gradient(arch):
    trunk,stage,c = split_backbone(arch, pretrained=False)
    out = stage(trunk(torch.randn(2,3,64,96)))
    assert out.shape==(2,c,4,6)
    out.mean().backward()

def test_backbone_equals_timm_where_the_stride_is_untouched():
    "The cut loses no module: trunk alone gives timm's own map at stride 16"
    torch.manual_seed(0); trunk,_,_ = split_backbone('resnet18', pretrained=False)
    torch.manual_seed(0); m = timm.create_model('resnet18', num_classes=0)
    x = torch.randn(2,3,64,64)
    torch.testing.assert_close(trunk.eval()(x), m.eval().forward_intermediates(x, indices=[3], intermediates_only=True)[0])

@pytest.mark.parametrize('arch', ['resnet10t','convnext_atto','mobilenetv3_small_050','tf_efficientnet_lite0','densenet121','resnetv2_50','nfnet_l0'])
def test_trunk_and_stage_are_forward_features(arch):
    "Head convolution, final norm and activation included, where a network has them; and no layer of its classifier"
    from vehicle_reid.backbone import _cut
    torch.manual_seed(0); model = timm.create_model(arch, num_classes=0)
    trunk,stage = _cut(model)
    assert model.training and trunk.training and stage.training
    x = torch.randn(2,3,64,64)
    model.eval()
    with torch.no_grad(): want,got = model.forward_features(x),stage(trunk(x))
    torch.testing.assert_close(got, want)
    assert got.shape[1]==split_backbone(arch, pretrained=False)[2]

def test_a_network_that_fuses_its_stages_ends_at_the_last():
    "MobileNetV5's forward_features is no row of its children: the cut is that of `feature_info`"
    from vehicle_reid.backbone import _cut
    model = timm.create_model('mobilenetv5_300m_enc', num_classes=0)
    *_,last = [o['module'] for o in model.feature_info]
    assert list(_cut(model)[1].modules())[-1] is list(model.get_submodule(last).modules())[-1] and model.training

def test_resnet_last_stage_keeps_weights_and_is_not_dilated():
    _,stage,_ = split_backbone('resnet50', pretrained=False)
    assert not [m for m in stage.modules() if isinstance(m, torch.nn.Conv2d) and (m.stride!=(1,1) or m.dilation!=(1,1))]

def test_checkpoint_path_is_accepted_and_checked(tmp_path):
    torch.manual_seed(1); m = timm.create_model('resnet10t')
    torch.save(m.state_dict(), tmp_path/'w.pth')
    trunk,_,_ = split_backbone('resnet10t', pretrained=tmp_path/'w.pth')
    torch.testing.assert_close(trunk.state_dict()['0.0.weight'] if '0.0.weight' in trunk.state_dict() else next(iter(trunk.parameters())), next(iter(m.parameters())))
    with pytest.raises(RuntimeError, match='is not one of'): split_backbone('resnet18', pretrained=tmp_path/'w.pth')
    with pytest.raises(FileNotFoundError, match='no file'): split_backbone('resnet18', pretrained=tmp_path/'nowhere.pth')

def test_imagenet_weights_of_a_package(tmp_path):
    "`benchmarks/_weights.py` gives each layer its own: the network knows a cat when it sees one, and `split_backbone` reads the file"
    from skimage import data
    done = subprocess.run([sys.executable, str(Path(__file__).resolve().parents[1]/'benchmarks/_weights.py'), '0', str(tmp_path/'w.safetensors')], capture_output=True, text=True)
    assert not done.returncode, done.stderr
    net = timm.create_model('tf_efficientnet_lite0', checkpoint_path=tmp_path/'w.safetensors').eval()
    cat = torch.from_numpy(data.chelsea()).permute(2,0,1)[None]/127.5-1
    with torch.no_grad(): assert int(net(cat).argmax()) in range(281, 286) # ImageNet's five cats
    trunk,_,_ = split_backbone('tf_efficientnet_lite0', pretrained=tmp_path/'w.safetensors')
    assert next(trunk.parameters()).equal(net.conv_stem.weight)

def test_unreachable_weights_say_how_to_go_on(monkeypatch, tmp_path):
    from huggingface_hub import constants
    monkeypatch.setattr(constants, 'ENDPOINT', 'http://127.0.0.1:9')
    monkeypatch.setattr('vehicle_reid.backbone.try_to_load_from_cache', lambda *a: None)
    with pytest.raises(RuntimeError, match='pretrained=False.*checkpoint'): split_backbone('resnet18', pretrained=True)

@pytest.mark.parametrize('arch', ['vit_tiny_patch16_224', 'no_such_net'])
def test_bad_architecture(arch):
    with pytest.raises(ValueError, match='resnet|knows no'): split_backbone(arch, pretrained=False)

def test_panet_shapes_loss_and_error():
    net = PANet(5, 'resnet10t', pretrained=False)
    logits,fg = net(torch.randn(2,3,64,96))
    assert logits.shape==(2,5) and fg.shape==(2,1,64,96) and 0<=fg.min() and fg.max()<=1
    PANetLoss()((logits,fg), torch.tensor([0,4]), torch.rand(2,1,64,96)).backward()
    assert all(p.grad is not None for p in net.parameters() if p.requires_grad)
    with pytest.raises(ValueError, match='multiples of 16'): net(torch.randn(2,3,60,64))

rows = dict(all={}, exp1=dict(students=False, teachers=False), exp2=dict(students=False, attention='none'), exp3=dict(attention='none'), exp5=dict(global_head=False),
    exp6=dict(students=False), se=dict(attention='se'), residual=dict(attention='residual'), unshared=dict(share=False), students_only=dict(teachers=False), k5=dict(n_parts=5), k1=dict(n_parts=1))

@pytest.mark.parametrize('row', rows)
def test_rows_train_and_embed(row):
    net = PMNet(6, 'resnet10t', feat_dim=32, pretrained=False, **rows[row])
    x,p = torch.randn(4,3,64,64),parts(4, net.n_parts)
    out = net(x, p)
    assert list(out['features'])==list(out['logits'])==net.heads
    assert len(out['maps'])==(net.n_parts if {'S','T'}<=set(net.heads) else 0)
    sum(o.sum() for o in out['logits'].values()).add(sum(o.sum() for o in out['features'].values())).backward()
    missing = [n for n,q in net.named_parameters() if q.requires_grad and q.grad is None]
    assert missing==['log_var']
    net.eval()
    e = net(x, p)
    width = dict(G=32, S=16*net.n_parts, T=16*net.n_parts)
    assert e.shape==(4, sum(width[h] for h in net.heads))
    torch.testing.assert_close((e**2).sum(1), torch.full((4,), float(len(net.heads))), atol=1e-3, rtol=1e-3)

def test_lambda_scales_each_head():
    net = PMNet(6, 'resnet10t', feat_dim=32, pretrained=False).eval()
    with torch.no_grad(): net.log_var.copy_(-torch.tensor([1.81,2.21,2.25]).log())
    e = net(torch.randn(2,3,64,64), parts(2)).detach()
    for sl,lam in ((slice(0,32),1.81), (slice(32,80),2.21), (slice(80,128),2.25)):
        torch.testing.assert_close((e[:,sl]**2).sum(1), torch.full((2,), lam), atol=1e-3, rtol=1e-3)

def test_pmnet_only_is_the_same_with_and_without_teachers_there():
    net = PMNet(6, 'resnet10t', feat_dim=32, pretrained=False).eval()
    x = torch.randn(2,3,64,64)
    torch.testing.assert_close(net(x), net(x, parts(2))[:,:80], atol=1e-5, rtol=1e-5)

def test_batch_permutation_permutes_embeddings():
    torch.manual_seed(0); net = PMNet(6, 'resnet10t', feat_dim=32, pretrained=False).eval()
    g = torch.Generator().manual_seed(0); x,perm = torch.randn(4,3,64,64, generator=g),torch.tensor([2,0,3,1])
    lo = torch.randint(0, 48, (4,3,2), generator=g); b,m = torch.cat([lo, lo+16], -1),(torch.rand(4,3,64,64, generator=g)>.5).float() # an image's own boxes and masks
    def same(b, m): return torch.isclose(net(x[perm], (b,m)), e[perm], atol=1e-5, rtol=1e-5).all(1)
    e = net(x, (b,m))
    assert same(b[perm], m[perm]).all() and not same(b, m[perm]).any() and not same(b[perm], m).any() # with another image's parts it is another vector

def test_two_last_stages_start_equal_and_are_separate():
    net = PMNet(6, 'resnet10t', pretrained=False)
    for a,b in zip(net.global_stage.parameters(), net.part_stage.parameters()): assert torch.equal(a, b) and a.data_ptr()!=b.data_ptr()

def test_save_and_load_without_pickle(tmp_path):
    net = PMNet(6, 'resnet10t', feat_dim=32, n_parts=2, attention='se', pretrained=False).eval()
    with torch.no_grad(): net.log_var.copy_(torch.tensor([.1,.2,.3]))
    net.save_pretrained(tmp_path/'m')
    assert {p.name for p in (tmp_path/'m').iterdir()} >= {'config.json','model.safetensors'}
    assert json.loads((tmp_path/'m'/'config.json').read_text())['pretrained'] is False
    again,x = PMNet.from_pretrained(tmp_path/'m').eval(),torch.randn(2,3,64,64)
    assert torch.equal(again(x), net(x)) and torch.equal(again.weights, net.weights)
    PANet(3, 'resnet10t', pretrained=False).save_pretrained(tmp_path/'p'); PANet.from_pretrained(tmp_path/'p')

def test_bad_input():
    net = PMNet(6, 'resnet10t', feat_dim=32, pretrained=False)
    with pytest.raises(ValueError, match='3 part streams'): net(torch.randn(2,3,64,64), parts(2, 4))
    with pytest.raises(ValueError, match='learns nothing'): PMNet(6, 'resnet10t', pretrained=False, students=False, teachers=False, global_head=False)
    with pytest.raises(ValueError, match="'mam'"): PMNet(6, 'resnet10t', pretrained=False, attention='mamm')
    with pytest.raises(ValueError, match='needs `parts`'): PMNet(6, 'resnet10t', pretrained=False, students=False, global_head=False).eval()(torch.randn(2,3,64,64))

def test_baseline():
    net = Baseline(6, 'resnet10t', pretrained=False)
    out = net(torch.randn(2,3,64,64))
    assert out['features']['G'].shape==(2,512) and out['logits']['G'].shape==(2,6)
    torch.testing.assert_close((net.eval()(torch.randn(2,3,64,64))**2).sum(1), torch.ones(2))

@pytest.mark.parametrize('arch', ['resnet10t','convnext_atto','mobilenetv3_small_050','tf_efficientnet_lite0'])
def test_a_saved_backbone_is_where_the_next_network_begins(arch, tmp_path):
    "Also where losing its stride has renamed a stage's layers"
    from vehicle_reid.pmnet import Baseline, PMNet, save_backbone
    torch.manual_seed(0); old = Baseline(5, arch, pretrained=False).eval(); x = torch.rand(2,3,64,64)
    new = PMNet(9, arch, feat_dim=32, pretrained=save_backbone(old, tmp_path/'b.safetensors')).eval()
    with torch.no_grad():
        want = old.global_stage(old.trunk(x))
        for stage in (new.global_stage, new.part_stage): assert torch.equal(stage(new.trunk(x)), want)
    with pytest.raises(RuntimeError, match='is not one of'): PMNet(9, 'resnet18' if arch!='resnet18' else 'resnet34', pretrained=tmp_path/'b.safetensors')

def test_weights_may_be_named_with_a_tag(monkeypatch):
    "A bare ResNet begins with torchvision's first weights; a tag is taken at its word"
    from huggingface_hub import constants
    monkeypatch.setattr(constants, 'ENDPOINT', 'http://127.0.0.1:9'); monkeypatch.setattr('vehicle_reid.backbone.try_to_load_from_cache', lambda *a: None) # no hub, nothing kept
    a,b = (split_backbone(o, pretrained=False) for o in ('resnet18','resnet18.a1_in1k'))
    assert {n: p.shape for n,p in a[1].state_dict().items()}=={n: p.shape for n,p in b[1].state_dict().items()}
    for arch,repo in (('resnet50','timm/resnet50.tv_in1k'), ('resnet50.a1_in1k','timm/resnet50.a1_in1k'), ('resnet10t',timm.get_pretrained_cfg('resnet10t').hf_hub_id)):
        with pytest.raises(RuntimeError, match=re.escape(f'({repo})')): split_backbone(arch, pretrained=True)
    for pre in (True, False):
        with pytest.raises(ValueError, match=r"no weights 'resnet50.tv_in21k'. Near names: .*resnet50.tv_in1k"): split_backbone('resnet50.tv_in21k', pre)
