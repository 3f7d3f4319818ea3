"P×K batches, augmentation image by image, and loaders that open, embed, export and complain as they should"
import math, os, pickle
from collections import Counter
from pathlib import Path
import numpy as np, pandas as pd, pytest, torch
import torch.nn.functional as F
from torch import nn
from hypothesis import given, settings, strategies as st
from PIL import Image
from fastai.callback import progress, schedule # patch `no_bar` and `lr_find` into Learner
from fastai.learner import Learner, load_learner
from fastai.torch_core import TensorImage, TensorMask, set_seed
from fastai.vision.core import imagenet_stats
from vehicle_reid.data import (PKSampler, RandomErasing, ColorPatchOcclusion, FlipPadCrop, ReIDDataLoaders, fill_patches,
    occlude, occlude_queries, random_boxes, reid_tfms)
from vehicle_reid.datasets import read_occluded_veri, read_veri
from test_datasets import toy_cityflow, toy_folder, toy_vehicleid, toy_veri, toy_veriwild, toy_vric

# ---- sampler ----------------------------------------------------------------------------------------------------------------------

counts = st.lists(st.integers(1,23), min_size=1, max_size=9)

@given(counts, st.integers(1,5), st.integers(1,6), st.integers(0,99))
@settings(max_examples=200)
def test_sampler_properties(ns, p, k, seed):
    p = min(p, len(ns))
    ids = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(ns))*7, ns))
    s = PKSampler(ids, p, k, seed); rows = list(s)
    chunks = [math.ceil(n/k) for n in ns]
    assert len(rows)==len(s)==max(math.ceil(sum(chunks)/p), max(chunks))*p*k
    assert set(rows)==set(range(len(ids))) # every image is seen
    for b in np.array(rows).reshape(-1, p, k):
        of = ids[b]
        assert (of==of[:,:1]).all() and len(set(of[:,0]))==p # p distinct identities, k images each
        for r,v in zip(b, of[:,0]):
            n = (ids==v).sum()
            assert len(set(r))==min(n, k) and max(Counter(r.tolist()).values())==math.ceil(k/min(n, k)) # no image more often than need be

@given(counts, st.integers(1,4), st.integers(1,3))
def test_no_schedule_is_shorter(ns, p, k):
    "No fewer batches can hold all chunks: a batch holds p, and one of each identity"
    p = min(p, len(ns)); chunks = [math.ceil(n/k) for n in ns]
    n = len(PKSampler(np.repeat(np.arange(len(ns)), ns), p, k))//(p*k)
    assert (n-1)*p < sum(chunks) or n-1 < max(chunks)

def test_sampler_random_numbers():
    ids = np.repeat(np.arange(6), 5)
    s = PKSampler(ids, 2, 3, seed=3); a,b = list(s),list(s)
    assert a!=b and list(PKSampler(ids, 2, 3, seed=3))==a and list(PKSampler(ids, 2, 3, seed=4))==b
    before = torch.get_rng_state(); list(s); assert torch.equal(before, torch.get_rng_state()) # a seed leaves the global generator alone
    s = PKSampler(ids, 2, 3); state = torch.get_rng_state(); a,b = list(s),list(s); torch.set_rng_state(state)
    assert [list(s), list(s)]==[a,b] and a!=b

def test_all_orders_come_up():
    firsts = Counter(i for e in range(300) for i in list(PKSampler(np.repeat(np.arange(4), 4), 2, 2, seed=e))[:4])
    assert len(firsts)==16 and min(firsts.values())>40 # each of 16 images stands in the first batch about 75 times

@pytest.mark.parametrize('kw,says', [(dict(p=4), '3 identities, too few for p=4.*Pass p=3'), (dict(p=0), 'at least one identity'),
    (dict(p=2, k=0), 'at least one identity and one image')])
def test_sampler_bad_input(kw, says):
    with pytest.raises(ValueError, match=says): PKSampler([1,1,2,3], **kw)

# ---- rectangles -------------------------------------------------------------------------------------------------------------------

@given(st.integers(8,80), st.integers(8,80), st.floats(.02,.5), st.integers(0,99))
def test_boxes_lie_inside(h, w, hi, seed):
    g = torch.Generator().manual_seed(seed)
    b = random_boxes(50, h, w, (.01,hi), generator=g)
    assert (b[:,:2]>=0).all() and (b[:,0]<b[:,2]).all() and (b[:,1]<b[:,3]).all() and (b[:,2]<=w).all() and (b[:,3]<=h).all()

def test_boxes_have_the_area_and_ratio_asked_for():
    torch.manual_seed(0); b = random_boxes(4000, 250, 250).float()
    w,h = (b[:,2:]-b[:,:2]).T
    share,ratio = w*h/250/250, h/w
    assert .018<share.min()<.025 and .38<share.max()<.42 and share.mean()==pytest.approx(.21, abs=.01)
    assert .28<ratio.min()<.35 and 2.9<ratio.max()<3.5 and ratio.log().mean()==pytest.approx(0, abs=.1)
    x,y = b[:,0]/(250-w),b[:,1]/(250-h)
    assert x.mean()==pytest.approx(.5, abs=.02) and y.mean()==pytest.approx(.5, abs=.02)

def test_impossible_boxes_are_clipped():
    b = random_boxes(20, 10, 100, (.5,.5), (50,60))
    assert (b[:,3]-b[:,1]==10).all() and (b[:,2]<=100).all()

# ---- augmentation -----------------------------------------------------------------------------------------------------------------

def images(n=24, h=32, w=40, c=3): return TensorImage(torch.rand(n,c,h,w)+1)

@pytest.mark.parametrize('t', [RandomErasing(1.), ColorPatchOcclusion(1.), FlipPadCrop(pad=4)])
def test_only_training_images_change(t):
    x,y,m = images(),torch.arange(24),TensorMask(torch.rand(24,1,32,40))
    before = torch.get_rng_state()
    for split in (1,None):
        out = t((x,y,m), split_idx=split)
        assert all(torch.equal(a,b) for a,b in zip(out,(x,y,m))) and torch.equal(before, torch.get_rng_state())
    keep = x.clone(); out = t((x,y,m), split_idx=0)
    assert torch.equal(x, keep) and not torch.equal(out[0], x) and torch.equal(out[1], y)
    assert type(out[0]) is TensorImage and type(out[2]) is TensorMask
    assert torch.equal(out[2], m)==(not isinstance(t, FlipPadCrop))
    same = TensorImage(torch.ones(24,3,32,40)+torch.arange(40))
    assert len({o.numpy().tobytes() for o in t(same, split_idx=0)})>12 # each image has its own numbers
    torch.manual_seed(5); a = t(x, split_idx=0); torch.manual_seed(5); assert torch.equal(a, t(x, split_idx=0))

def test_erasing_is_one_rectangle_of_zeros():
    torch.manual_seed(0); x = images(400); out = RandomErasing(.5, (.1,.3), (.5,2))(x, split_idx=0)
    n = 0
    for a,b in zip(x, out):
        gone = (b!=a).any(0)
        if not gone.any(): continue
        n += 1; ys,xs = torch.where(gone)
        assert gone[ys.min():ys.max()+1, xs.min():xs.max()+1].all() and (b[:,gone]==0).all()
        assert .08<gone.float().mean()<.33
    assert 160<n<240

def test_patches_are_flat_normalised_colours():
    torch.manual_seed(0); x = images(400)+100; t = ColorPatchOcclusion(.3, n=3); out = t(x, split_idx=0)
    mean,std = (torch.tensor(o)[:,None] for o in imagenet_stats)
    hit,kinds,seen = 0,Counter(),[]
    for a,b in zip(x, out):
        gone = (b!=a).any(0)
        if not gone.any(): continue
        hit += 1; rgb = b[:,gone].as_subclass(torch.Tensor)*std+mean
        assert rgb.min()>-1e-5 and rgb.max()<1+1e-5
        kinds[len(rgb.unique(dim=1).T)] += 1; seen.append(rgb.unique(dim=1))
    seen = torch.cat(seen, 1); assert (seen.min(1)[0]<.05).all() and (seen.max(1)[0]>.95).all() # all colours
    assert 85<hit<155 and set(kinds)=={1,2,3} and min(kinds.values())>15

def test_patches_lie_as_drawn():
    x = torch.zeros(2,3,10,10); boxes = torch.tensor([[[0,0,4,4],[2,2,6,6]], [[5,5,5,5],[0,0,0,0]]]); colors = torch.rand(2,2,3)+1
    out = fill_patches(x, boxes, colors); slow = x.clone()
    for i in range(2):
        for (x0,y0,x1,y1),c in zip(boxes[i].tolist(), colors[i]): slow[i,:,y0:y1,x0:x1] = c[:,None,None]
    assert torch.equal(out, slow) and (out[1]==0).all()

def test_flip_pad_crop_is_one_of_the_literal_ones():
    torch.manual_seed(0); pad,x,m = 2,images(64, 8, 10),TensorMask(torch.rand(64,1,8,10)); seen = Counter()
    a,b = map(plain, FlipPadCrop(.5, pad)((x,m), split_idx=0))
    for x0,m0,x1,m1 in zip(plain(x), plain(m), a, b):
        found = []
        for flip in (0,1):
            for dy in range(2*pad+1):
                for dx in range(2*pad+1):
                    move = lambda o: F.pad(o.flip(-1) if flip else o, (pad,)*4)[:,dy:dy+8,dx:dx+10]
                    if torch.equal(move(x0), x1): found.append((flip,dy,dx)); assert torch.equal(move(m0), m1)
        assert len(found)==1; seen[found[0]] += 1
    assert {f for f,_,_ in seen}=={0,1} and {d for _,d,_ in seen}=={d for _,_,d in seen}==set(range(5))

def test_pad_follows_the_size():
    for size,pad in ((256,10), (128,5), (64,2)):
        t = FlipPadCrop(); torch.manual_seed(0); [t(images(200, size, size, 1), split_idx=0)]
        dy,dx,_ = t.shift; assert {int(o.min()) for o in (dy,dx)}=={-pad} and {int(o.max()) for o in (dy,dx)}=={pad}

def test_order_and_choice_of_augmentations():
    assert [type(t).__name__ for t in reid_tfms(.3)]==['FlipPadCrop','ColorPatchOcclusion','RandomErasing']
    assert [type(t).__name__ for t in reid_tfms(erase=0)]==['FlipPadCrop'] and reid_tfms(.3, .7)[1].p==.3 and reid_tfms(.3, .7)[2].p==.7
    assert FlipPadCrop.order<ColorPatchOcclusion.order<RandomErasing.order

# ---- occluded test set ------------------------------------------------------------------------------------------------------------

def test_occlude_is_repeatable():
    img = Image.new('RGB', (60,40), 'white')
    a,b,c = (np.array(occlude(img, s)) for s in (0,0,1))
    assert (a==b).all() and (a!=c).any() and (np.array(img)==255).all() and .02<(a!=255).any(-1).mean()<.6
    assert np.array(occlude(img.convert('L'), 0)).shape==(40,60,3)

def test_occlude_queries(tmp_path):
    items = read_veri(toy_veri(tmp_path/'VeRi', size=(64,48)))
    new = occlude_queries(items, tmp_path/'hidden'); again = occlude_queries(items, tmp_path/'again')
    q = items.split=='query'
    pd.testing.assert_frame_equal(new[~q], items[~q]); assert len(set(new.path[q]))==q.sum()==3
    hidden = []
    for a,b,c in zip(items.path[q], new.path[q], again.path[q]):
        gone = np.abs(np.array(Image.open(a)).astype(int)-np.array(Image.open(b))).max(-1)>20
        assert Path(b).read_bytes()==Path(c).read_bytes() and gone.any(); hidden.append(gone)
    assert all((a!=b).mean()>.02 for a,b in zip(hidden, hidden[1:])) # each query its own patches
    assert sorted(read_occluded_veri(tmp_path/'VeRi', tmp_path/'hidden').query('split=="query"').path)==sorted(new.path[q])
    before = sorted(os.listdir(tmp_path/'hidden'))
    with pytest.raises(ValueError, match='not empty.*nothing in it was changed'): occlude_queries(items, tmp_path/'hidden', seed=1)
    assert sorted(os.listdir(tmp_path/'hidden'))==before

def test_occluded_queries_go_on_and_mend_what_is_broken(tmp_path):
    items = read_veri(toy_veri(tmp_path/'VeRi', size=(64,48))); q = items.split=='query'
    new = occlude_queries(items, tmp_path/'hidden', seed=3); files = [Path(p) for p in new.path[q]]
    want = [f.read_bytes() for f in files]
    files[0].unlink(); files[1].write_bytes(want[1][:99]) # interrupted, damaged
    kept = files[2].stat().st_mtime_ns
    pd.testing.assert_frame_equal(occlude_queries(items, tmp_path/'hidden', seed=3), new)
    assert [f.read_bytes() for f in files]==want and files[2].stat().st_mtime_ns==kept and not list((tmp_path/'hidden').glob('*.part'))
    with pytest.raises(ValueError, match='holds no copies of these queries with this seed'): occlude_queries(items, tmp_path/'hidden', seed=4)
    with pytest.raises(ValueError, match='1 queries share their file name'): occlude_queries(pd.concat([items, items[q][:1].assign(path=f'elsewhere/{files[0].name}')], ignore_index=True), tmp_path/'two')

# ---- loaders ----------------------------------------------------------------------------------------------------------------------

@pytest.fixture(scope='module')
def path(tmp_path_factory): return toy_veri(tmp_path_factory.mktemp('data')/'VeRi')

def loaders(path, **kw): return ReIDDataLoaders.from_veri(path, **{**dict(size=32, p=2, k=3, num_workers=0, device='cpu'), **kw})

@pytest.fixture
def dls(path): return loaders(path)

def by_hand(paths, size=32):
    "What validation should see, with PIL and numpy"
    xs = np.stack([np.array(Image.open(p).convert('RGB').resize((size,size), Image.Resampling.BILINEAR)) for p in paths])/255
    return torch.tensor((xs-imagenet_stats[0])/imagenet_stats[1]).permute(0,3,1,2).float()

def plain(x): return x.as_subclass(torch.Tensor)

def test_training_batches(dls):
    assert len(dls.train)==len(dls.train.sampler)//6 and dls.vocab==[1,3,7,41] and dls.n_ids==4 and dls.size==32
    seen = set()
    for x,y in dls.train:
        assert x.shape==(6,3,32,32) and type(x) is TensorImage and x.dtype==torch.float32 and y.dtype==torch.int64
        assert y.view(2,3).unique(dim=1).shape==(2,1) and y[0]!=y[3]; seen |= set(y.tolist())
    assert seen=={0,1,2,3}

def test_labels_belong_to_their_images(path):
    dls = loaders(path, batch_tfms=[])
    of = {plain(x).numpy().round(4).tobytes(): v for x,v in zip(by_hand(dls.train_items.path), dls.train_items.vid)}
    for x,y in dls.train:
        for a,i in zip(x,y): assert of[plain(a).numpy().round(4).tobytes()]==dls.vocab[i]

def test_validation_is_queries_then_gallery_in_order(dls):
    items = pd.concat([dls.query_items, dls.gallery_items])
    x,y = (torch.cat(o) for o in zip(*dls.valid))
    torch.testing.assert_close(plain(x), by_hand(items.path)); assert (y==-1).all() and len(x)==21
    assert list(dls.items.split)==['train']*24+['query']*3+['gallery']*18
    assert [len(o) for o in (dls.train_items, dls.query_items, dls.gallery_items)]==[24,3,18]

def test_rows_in_any_order_give_the_same_sets(path):
    df = read_veri(path).sample(frac=1, random_state=0); dls = ReIDDataLoaders.from_df(df, size=32, p=2, k=3, num_workers=0, device='cpu')
    assert list(dls.items.path)==list(df.path) # the whole table, in the order given
    x = torch.cat([b[0] for b in dls.valid])
    torch.testing.assert_close(plain(x), by_hand(pd.concat([df[df.split=='query'], df[df.split=='gallery']]).path))

def test_the_same_seed_gives_the_same_batches_whatever_the_workers(path):
    def epoch(n):
        dls = loaders(path, num_workers=n, occlusion=.3); set_seed(3)
        return [(plain(x),y) for x,y in dls.train]
    a,b,c = epoch(0),epoch(0),epoch(2)
    for o in (b,c): assert all(torch.equal(x,x2) and torch.equal(y,y2) for (x,y),(x2,y2) in zip(a,o))
    ids = lambda dls: [y.tolist() for _,y in dls.train]
    dls = loaders(path, seed=1); one = ids(dls); assert one!=ids(dls) and one==ids(loaders(path, seed=1))

def test_augmentation_arguments(path):
    names = lambda dls: [type(t).__name__ for t in dls.train.after_batch.fs]
    base = ['IntToFloatTensor','Normalize']
    assert names(loaders(path))==base+['FlipPadCrop','RandomErasing']
    assert names(loaders(path, occlusion=.3))==base+['FlipPadCrop','ColorPatchOcclusion','RandomErasing']
    assert names(loaders(path, batch_tfms=[]))==base and names(loaders(path, batch_tfms=[RandomErasing(1.)]))==base+['RandomErasing']
    assert [type(t).__name__ for t in loaders(path).valid.after_batch.fs]==base
    from fastai.vision.augment import Resize
    assert loaders(path, item_tfms=Resize(48)).one_batch()[0].shape==(6,3,48,48)

def test_new_len_one_batch(dls):
    new = dls.train.new(); y = new.one_batch()[1].view(2,3)
    assert len(new)==len(dls.train)==len(list(new)) and (y==y[:,:1]).all() and y[0,0]!=y[1,0]
    assert len(dls.train.new(dls.valid_ds))==21//6

def net(): return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3,4))

def test_learner_lr_find_export(dls, tmp_path):
    learn = Learner(dls, net(), loss_func=F.cross_entropy, path=tmp_path)
    with learn.no_bar(), learn.no_logging():
        learn.lr_find(num_it=30, show_plot=False)
        learn.dls.loaders[1] = dls.train.new(); learn.fit(1, 1e-3)
    assert np.isfinite(learn.recorder.losses[-1].item())

def test_export_keeps_no_data_but_embeds(path, tmp_path):
    dls = loaders(path); learn = Learner(dls, net(), loss_func=F.cross_entropy, path=tmp_path); learn.export('l.pkl')
    assert learn.dls is dls and b'image_train' not in (tmp_path/'l.pkl').read_bytes()
    again = load_learner(tmp_path/'l.pkl').dls
    assert again.size==32 and again.vocab==dls.vocab and len(again.items)==0
    torch.testing.assert_close(plain(again.embed_dl(dls.query_items).one_batch()), by_hand(dls.query_items.path))
    with pytest.raises(ValueError, match='no training images'): again.show_batch()

def test_pickle_without_data(dls):
    small = pickle.dumps(dls.new_empty()); assert len(small)<20_000 and b'.jpg' not in small
    again = pickle.loads(small)
    assert again.vocab==dls.vocab and list(again.items.columns)==list(dls.items.columns)
    assert again.embed_dl(dls.query_items).one_batch().shape==(3,3,32,32)
    assert len(pickle.loads(pickle.dumps(dls)).train)==len(dls.train)

def test_embed_dl_takes_what_is_an_image(dls):
    df = dls.gallery_items; want = by_hand(df.path)
    pics = [Image.open(p) for p in df.path]
    for items in (df, list(df.path), [Path(p) for p in df.path], pics, [np.array(o) for o in pics]):
        x = torch.cat([plain(b) for b in dls.embed_dl(items, bs=4)]); torch.testing.assert_close(x, want)
    for one in (df.path[0], Path(df.path[0]), pics[0]): torch.testing.assert_close(plain(dls.embed_dl(one).one_batch()), want[:1])
    assert type(pics[0]).__name__=='JpegImageFile' # what was given is as it was
    for mode in ('L','RGBA','P'): assert dls.embed_dl(Image.open(df.path[0]).convert(mode)).one_batch().shape==(1,3,32,32)
    assert len(dls.embed_dl(df, bs=4))==5

def test_embed_dl_bad_input(dls, tmp_path):
    with pytest.raises(FileNotFoundError, match='1 of 2 images do not exist: nothing.jpg'): dls.embed_dl([dls.items.path[0], 'nothing.jpg'])
    (tmp_path/'text.jpg').write_text('no image')
    with pytest.raises(RuntimeError, match='cannot read image .*text.jpg'): dls.embed_dl([dls.items.path[0], tmp_path/'text.jpg'])
    with pytest.raises(ValueError, match='nothing to embed'): dls.embed_dl([])

def test_show_batch(dls):
    import matplotlib.pyplot as plt
    fig = dls.show_batch(); assert fig is plt.gcf()
    axs = fig.axes; assert len(axs)==6
    labels = [ax.get_ylabel() for ax in axs if ax.get_ylabel()]; assert len(set(labels))==2 and set(map(int, labels))<=set(dls.vocab)
    assert {ax.get_title() for ax in axs}<={'c1','c2','c13'} and axs[0].images[0].get_array().max()>60
    plt.close('all'); fig = dls.show_batch(p=1, k=2, figsize=(3,2)); assert len(fig.axes)==2 and tuple(fig.get_size_inches())==(3,2); plt.close('all')

def test_show_batch_with_a_seed(dls):
    import matplotlib.pyplot as plt
    def seen(seed): return [ax.images[0].get_array().data.tobytes() for ax in dls.show_batch(seed=seed).axes]
    state = torch.get_rng_state()
    assert seen(1)==seen(1)!=seen(2) and torch.equal(state, torch.get_rng_state()); plt.close('all')

def test_other_factories(tmp_path):
    kw = dict(size=32, p=2, k=2, num_workers=0)
    dls = ReIDDataLoaders.from_vehicleid(toy_vehicleid(tmp_path/'V'), trial=2, **kw)
    assert dls.vocab==[1,2,3] and len(dls.gallery_items)==5 and dls.one_batch()[0].shape==(4,3,32,32)
    dls = ReIDDataLoaders.from_folder(toy_folder(tmp_path/'own'), **kw); assert dls.vocab==[0,1]; dls.show_batch()
    read_veri(toy_veri(tmp_path/'VeRi')).to_csv(tmp_path/'t.csv', index=False)
    assert len(ReIDDataLoaders.from_df(tmp_path/'t.csv', **kw).items)==45

# ---- masks ------------------------------------------------------------------------------------------------------------------------

def test_masks_move_with_their_images(path, tmp_path):
    dls,masks = loaders(path),[]
    for i,p in enumerate(dls.train_items.path): # the images get a bright lower left half that the masks repeat
        yy,xx = np.mgrid[:20,:24]; m = (yy*24>xx*20)
        Image.fromarray(np.where(m, 255, 0).astype(np.uint8)).save(tmp_path/f'{i}.png'); masks.append(tmp_path/f'{i}.png')
    bright = dls.train_items.assign(path=[str(m) for m in masks]); dls.train_items = bright # the mask file itself is the image
    mdls = dls.mask_dls(masks, bs=8); n = 0; ys = []
    for x,y,m in mdls.train:
        assert x.shape==(8,3,32,32) and m.shape==(8,1,32,32) and m.dtype==torch.float32 and type(m) is TensorMask and 0<=m.min()<=m.max()<=1
        rgb = plain(x)*torch.tensor(imagenet_stats[1])[:,None,None]+torch.tensor(imagenet_stats[0])[:,None,None]
        inside = (plain(x)!=0).all(1, keepdim=True)
        torch.testing.assert_close(torch.where(inside, rgb[:,:1], 0.), torch.where(inside, plain(m), 0.), atol=1e-5, rtol=0)
        n += len(x); ys += y.tolist()
        assert len({o.numpy().tobytes() for o in plain(m)})>2 # not all moved alike
    assert n==24 and Counter(ys)=={0:6,1:6,2:6,3:6} and len(mdls.train)==3
    x,y,m = mdls.valid.one_batch(); assert m.shape==(8,1,32,32) and all(torch.equal(o, m[0]) for o in m)
    assert ((m>.05)&(m<.95)).any() # a soft edge stays soft

def test_mask_dls_sizes_and_bad_input(dls, tmp_path):
    paths = list(dls.train_items.path)
    assert len(dls.mask_dls(paths, bs=64).train)==1 and dls.mask_dls(paths).one_batch()[0].shape[0]==24 # fewer images than a batch
    with pytest.raises(ValueError, match='3 masks for 24 training images'): dls.mask_dls(paths[:3])
    with pytest.raises(FileNotFoundError, match='1 of 24 images do not exist'): dls.mask_dls(paths[:-1]+['gone.png'])

# ---- bad input --------------------------------------------------------------------------------------------------------------------

def test_bad_arguments(path):
    with pytest.raises(ValueError, match='4 identities, too few for p=5'): loaders(path, p=5)
    with pytest.raises(ValueError, match='size=100 is not a multiple of 16.*96'): loaders(path, size=100)
    with pytest.raises(ValueError, match='no query rows'): ReIDDataLoaders.from_df(read_veri(path).query('split!="query"'))

def test_a_vehicle_with_one_image_is_repeated(path):
    df = read_veri(path); df = df[(df.vid!=3)|~df.vid.duplicated()]
    dls = ReIDDataLoaders.from_df(df, size=32, p=4, k=3, num_workers=0, device='cpu')
    for x,y in dls.train: assert Counter(y.tolist())=={0:3,1:3,2:3,3:3}
    x,y = dls.one_batch(); xs = x[y==1]
    assert not torch.equal(xs[0], xs[1]) or not torch.equal(xs[1], xs[2]) # but augmented each time anew

@pytest.mark.parametrize('workers', [0,2])
def test_a_broken_file_is_named(tmp_path, workers):
    path = toy_veri(tmp_path/'VeRi'); dls = loaders(path, num_workers=workers)
    row = 5; Path(dls.items.path[row]).write_bytes(Path(dls.items.path[row]).read_bytes()[:200])
    says = rf'cannot read image .*{Path(dls.items.path[row]).name} \(row 5\): .*verify_images'
    with pytest.raises(RuntimeError, match=says): list(dls.train)

@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA GPU')
def test_cuda_batches_are_those_of_the_cpu(path):
    set_seed(0); a = [(plain(x),y) for x,y in loaders(path, occlusion=.5).train]
    set_seed(0); b = [(plain(x),y) for x,y in loaders(path, occlusion=.5, device='cuda').train]
    for (x,y),(x2,y2) in zip(a,b): torch.testing.assert_close(x, x2.cpu()); assert torch.equal(y, y2.cpu()) and x2.is_cuda

@pytest.mark.parametrize('make,toy', [('from_veriwild',toy_veriwild), ('from_vric',toy_vric), ('from_cityflow',toy_cityflow)])
def test_loaders_of_other_layouts(tmp_path, make, toy):
    dls = getattr(ReIDDataLoaders, make)(toy(tmp_path/'set'), size=32, p=2, k=2)
    x,y = dls.train.one_batch()
    assert x.shape==(4,3,32,32) and len(dls.query_items) and len(dls.gallery_items)

def test_loaders_from_names(tmp_path):
    for v in 'abcd':
        for c in '12': Image.new('RGB', (20,20)).save(tmp_path/f'{v}_{c}.png')
    dls = ReIDDataLoaders.from_names(tmp_path, r'(?P<vid>\w)_(?P<cam>\d)', size=32, p=2, k=2)
    assert len(dls.train_items)==6 and len(dls.query_items)==2==len(dls.gallery_items) and len(dls.train.one_batch()[1])==4
