"Pictures say what the data says: frames, captions, boxes, heat, and lines are read back from the figures"
import numpy as np, pandas as pd, pytest, torch
from collections import namedtuple
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex, to_rgb
from matplotlib.patches import Rectangle
from PIL import Image
from vehicle_reid import show
from vehicle_reid.show import *

Parts = namedtuple('Parts', 'boxes masks foreground')
rng = np.random.default_rng(0)
def image(h=40, w=60): return rng.integers(0, 255, (h,w,3), dtype=np.uint8)

@pytest.fixture(autouse=True)
def closed():
    plt.close('all'); yield; plt.close('all')

def texts(fig): return [t.get_text() for t in fig.axes[0].texts]
def frames(fig): return [p for p in fig.axes[0].patches if isinstance(p, Rectangle)]
def tiles(fig): return {(round(i.get_extent()[0],2), round(i.get_extent()[3],2)): np.asarray(i.get_array()) for i in fig.axes[0].images}
def drawn(fig): fig.canvas.draw(); return fig

# ---- images -------------------------------------------------------------------------------------------------------------------

def test_every_kind_of_image_is_the_same_picture(tmp_path):
    a = image(); Image.fromarray(a).save(tmp_path/'a.png')
    kinds = [a, a/255, Image.fromarray(a), str(tmp_path/'a.png'), tmp_path/'a.png', torch.tensor(a).permute(2,0,1), torch.tensor(a).permute(2,0,1)/255]
    for k in kinds: assert np.array_equal(np.asarray(show._rgb(k)), a), type(k)
    assert show._rgb(Image.fromarray(a[...,0])).mode=='RGB'

@pytest.mark.parametrize('bad,what', [(torch.randn(3,8,8), 'normalised'), (np.full((8,8,3), 200.), 'normalised'), (torch.zeros(8,8), 'cannot be drawn'), (torch.zeros(1,3,8,8), 'cannot be drawn')])
def test_what_is_no_image_is_refused(bad, what):
    with pytest.raises(ValueError, match=what): plot_rankings([bad], [[image()]], [[True]])

def test_missing_file_is_named(tmp_path):
    with pytest.raises(OSError, match='gone.jpg'): plot_rankings([tmp_path/'gone.jpg'], [[image()]], [[True]])

# ---- rankings -----------------------------------------------------------------------------------------------------------------

def test_frames_and_captions_follow_the_ranking():
    right = [[True,False,True],[False,False,True]]
    fig = drawn(plot_rankings([image(), image()], [[image() for _ in range(3)] for _ in range(2)], right,
        dists=torch.tensor([[.1,.25,.3],[.5,.6,.7]]), q_cams=[4,-1], cams=np.array([[1,2,-1],[5,6,7]]), names=['one','two']))
    colors = [to_hex(p.get_edgecolor()) for p in frames(fig)]
    assert [c==show._green for c in colors]==[False,*right[0],False,*right[1]] and colors.count(show._red)==3
    t = texts(fig)
    assert t[:4]==['query','1','2','3'] and t[4:8]==['one\ncamera 4','camera 1\n0.10','camera 2\n0.25','0.30'] and t[8]=='two' and t[9]=='camera 5\n0.50'
    x = [p.get_x() for p in frames(fig)[:4]]
    assert x==sorted(x) and all(b-a>1 for a,b in zip(x, x[1:])), 'nearest first, no overlap'

def test_columns_of_a_table_are_taken_in_their_order():
    df = pd.DataFrame(dict(cam=[3,4], name=['x','y']), index=[7,0])
    fig = drawn(plot_rankings([image()]*2, [[image()]]*2, [[1]]*2, q_cams=df.cam, names=df.name))
    assert [o for o in texts(fig) if 'camera' in o]==['x\ncamera 3','y\ncamera 4']

def test_plain_and_ragged_rankings():
    fig = drawn(plot_rankings([image()]*2, [[image()], [image(), image()]], [[1],[0,1]]))
    assert len(frames(fig))==5 and '' in texts(fig)
    fig = drawn(plot_rankings([image()], [[]], [[]])) # a gallery with nothing left
    assert len(frames(fig))==1

@pytest.mark.parametrize('kw', [dict(ranked=[[image()]]), dict(correct=[[1]]), dict(cams=[[1]]), dict(names=['a'])])
def test_lists_of_another_length_are_refused(kw):
    args = {**dict(queries=[image()]*2, ranked=[[image()]]*2, correct=[[1]]*2), **kw}
    with pytest.raises(ValueError, match='has 1 rows for 2 queries'): plot_rankings(**args)

def test_rows_within_a_ranking_must_agree_too():
    with pytest.raises(ValueError, match='row 0'): plot_rankings([image()], [[image(), image()]], [[True]])
    with pytest.raises(ValueError, match='row 0'): plot_rankings([image()], [[image(), image()]], [[True,False]], dists=[[.1]])

def test_no_query_is_an_error():
    with pytest.raises(ValueError, match='no query'): plot_rankings([], [], [])

def test_a_figure_can_be_saved_and_is_known_to_pyplot(tmp_path):
    fig = plot_rankings([image()], [[image()]], [[True]])
    fig.savefig(tmp_path/'a.png')
    assert Image.open(tmp_path/'a.png').size[0]>100 and plt.fignum_exists(fig.number)

# ---- parts --------------------------------------------------------------------------------------------------------------------

def parts(B=2, K=3, h=32, w=32):
    boxes = torch.tensor([[[4,2,28,10],[2,12,20,20],[10,22,30,30]][:K]]*B); masks = torch.zeros(B, K, h, w)
    for b in range(B):
        for k,(x0,y0,x1,y1) in enumerate(boxes[b].tolist()): masks[b,k,y0:y1,x0:x1] = 1
    return Parts(boxes, masks, torch.rand(B, 1, h, w))

@pytest.mark.parametrize('light', [.8,.05])
def test_part_tiles_are_tinted_inside_and_pale_outside_their_mask(light):
    P = parts(); fig = drawn(plot_parts(torch.full((2,3,32,32), light), P))
    ts = [t for (x,y),t in sorted(tiles(fig).items(), key=lambda o: (o[0][1], o[0][0]))]
    assert len(ts)==2*(2+3)
    for k in range(3):
        inner = np.asarray(Image.fromarray(P.masks[0,k].numpy()).resize((160,160)))
        t,c = ts[2+k]/255,np.array(to_rgb(show._parts[k]))
        assert np.allclose(t[inner==1], (light+c)/2, atol=.01), 'the part has its colour, on a black car too'
        assert (t[inner==0]>.4).all() and np.ptp(t[inner==0].mean(0))<.01, 'the rest is grey and not dark'

def test_part_boxes_lie_where_they_were_given():
    P = parts(B=1); fig = drawn(plot_parts(torch.rand(1,3,32,32), P))
    for k,(r,(x,y)) in enumerate(zip(frames(fig), sorted(tiles(fig))[2:])):
        x0,y0,x1,y1 = (P.boxes[0,k]/32).tolist()
        assert np.allclose([r.get_x()-x, r.get_y()-y, r.get_width(), r.get_height()], [x0,y0,x1-x0,y1-y0], atol=.01)

@pytest.mark.parametrize('size', [.4,.95,2])
def test_the_line_of_a_box_at_the_rim_stays_in_its_tile(size):
    P = parts(B=2); P = P._replace(boxes=torch.tensor([[0,0,32,32],[0,5,9,32],[20,0,32,9]]).expand(2,3,4))
    fig = drawn(plot_parts(torch.rand(2,3,32,32), P, size=size))
    drawn_tiles = [o for o in tiles(fig) if sorted({x for x,y in tiles(fig)}).index(o[0])>1]
    for r,(x,y) in zip(frames(fig), sorted(drawn_tiles, key=lambda o: o[::-1])):
        half = r.get_linewidth()/144/size
        for lo,n,at in ((r.get_x(), r.get_width(), x), (r.get_y(), r.get_height(), y)):
            assert lo-half>at-.006 and lo+n+half<at+1.006, 'tile corners are rounded to .01'

@pytest.mark.parametrize('grabcut', [False, True])
@pytest.mark.parametrize('stripes', [False, True])
@pytest.mark.parametrize('K', [1,3])
def test_columns_of_parts(grabcut, stripes, K):
    P = parts(K=K)
    fig = drawn(plot_parts(list(torch.rand(2,3,32,32)), P, grabcut=[torch.rand(40,60)]*2 if grabcut else None, stripes=P if stripes else None))
    want = ['image'] + ['GrabCut']*grabcut + ['foreground'] + [f'part {k+1}' for k in range(K)] + ['stripes']*stripes
    assert texts(fig)==want and len(tiles(fig))==2*len(want)
    right = max(i.get_extent()[1] for i in fig.axes[0].images)
    assert right==pytest.approx(fig.axes[0].get_xlim()[1], abs=.1), 'no tile is cut off, no empty edge'

def test_parts_of_another_batch_are_refused():
    with pytest.raises(ValueError, match='3 images'): plot_parts(torch.rand(3,3,32,32), parts(B=2))

# ---- attention ----------------------------------------------------------------------------------------------------------------

def test_heat_is_hot_where_the_map_is():
    maps = torch.zeros(1,2,8,8); maps[0,0,1,6] = 1; maps[0,1,6,1] = 5
    fig = drawn(plot_attention(torch.full((1,3,32,32), .5), dict(after=maps)))
    hot = [t for (x,y),t in sorted(tiles(fig).items())][1:]
    for t,(y,x) in zip(hot, ((1,6),(6,1))):
        light = t.astype(float).sum(-1)
        i,j = np.unravel_index(light.argmax(), light.shape)
        assert abs(i/20-.5-y)<1.1 and abs(j/20-.5-x)<1.1
        assert light[20*y+10,20*x+10]>light[159-20*y-10,159-20*x-10]+200, 'far from it, it is cold'

@pytest.mark.parametrize('size,rows', [(.5,1),(None,2)])
def test_attention_groups_stand_in_the_papers_order(size, rows):
    m = torch.rand(2,3,4,4)
    fig = drawn(plot_attention(torch.rand(2,3,32,32), dict(before=m, after=m, teacher=m), parts=parts(), size=size))
    order = ['parts','Teachers, after MAM','Students, before MAM','Students, after MAM']
    assert texts(fig)==order*(2 if rows==2 else 1), 'in two rows, each image has titles of its own'
    assert len(tiles(fig))==2*(1+4*3)+2*3, 'each Teacher tile holds a crop'
    e = np.array([i.get_extent() for i in fig.axes[0].images])
    assert len({round(y,3) for y in e[e[:,1]-e[:,0]>=.99,3]})==2*rows and e[:,1].max()==pytest.approx(fig.axes[0].get_xlim()[1]), 'no tile is cut off'

def test_a_teachers_map_lies_in_its_box():
    m = torch.zeros(1,3,8,8); m[...,:4] = 1 # hot in the left half of each crop
    P = parts(B=1); fig = drawn(plot_attention(torch.full((1,3,32,32), .5), dict(teacher=m), P))
    whole = [i.get_extent() for i in fig.axes[0].images if i.get_extent()[1]-i.get_extent()[0]==pytest.approx(1)]
    x_tile,y_tile = sorted({e[0] for e in whole})[-3:],whole[-1][3]
    crops = [i for i in fig.axes[0].images if i.get_extent()[1]-i.get_extent()[0]<.99]
    for k,(c,x) in enumerate(zip(crops, x_tile)):
        x0,x1,y1,y0 = c.get_extent()
        assert np.allclose([x0-x, y0-y_tile, x1-x, y1-y_tile], P.boxes[0,k]/32, atol=1e-6)
        t = np.asarray(c.get_array())*255.
        assert t[80,30].sum() > t[80,130].sum()+200

def test_the_image_under_a_teachers_map_is_its_crop():
    img = torch.zeros(1,3,32,32); img[...,16:] = 1 # right half white
    P = Parts(torch.tensor([[[16,0,32,32]]]), torch.ones(1,1,32,32), torch.ones(1,1,32,32))
    fig = drawn(plot_attention(img, dict(teacher=torch.ones(1,1,4,4)), P))
    t = np.asarray(fig.axes[0].images[-1].get_array())*255.
    assert (t[:,4:]>150).all(), 'white everywhere: only the crop is shown'

def test_teachers_without_parts_are_refused():
    with pytest.raises(ValueError, match='pass the `parts`'): plot_attention(torch.rand(1,3,32,32), dict(teacher=torch.rand(1,3,4,4)))

def test_a_flat_map_is_cold_and_finite():
    fig = drawn(plot_attention(torch.rand(1,3,32,32), dict(after=torch.ones(1,1,4,4))))
    t = tiles(fig); x,heat = t[min(t)],t[max(t)]
    assert np.allclose(heat, .8*x + .2*255*np.array(plt.get_cmap('inferno')(0.)[:3]), atol=2)

def test_no_maps_is_an_error():
    with pytest.raises(ValueError, match='maps is empty'): plot_attention(torch.rand(1,3,32,32), {})

# ---- curves -------------------------------------------------------------------------------------------------------------------

log = pd.DataFrame(dict(epoch=range(4), train_loss=[4,3,2,1.], valid_loss=[None]*4, id_G=[3,2,1,.5], id_S=[3,2,1,.4], tri_G=[.7]*4, transfer=[.1]*4, mAP=[np.nan,.2,np.nan,.4], time=['00:01']*4))

def test_each_family_of_columns_has_a_panel():
    fig = drawn(plot_curves(log, weights=[torch.tensor([1.,2.,3.])]*5))
    assert [a.get_title(loc='left') for a in fig.axes]==['loss','ID losses','triplet losses','ranking','transfer','λ = 1/σ²']
    assert [l.get_label() for l in fig.axes[1].lines]==['G','S'] and [l.get_label() for l in fig.axes[5].lines]==['G','S','T']

def test_unvalidated_epochs_are_passed_over():
    line, = plot_curves(log, columns=['mAP']).axes[0].lines
    assert list(line.get_xdata())==[2,4] and list(line.get_ydata())==[.2,.4]

def test_a_column_alone_keeps_its_epochs():
    line, = plot_curves(log.assign(epoch=[5,6,7,8]), columns=['train_loss']).axes[0].lines
    assert list(line.get_xdata())==[6,7,8,9]

def test_an_empty_log_is_an_error():
    with pytest.raises(ValueError, match='0 rows'): plot_curves(log[:0])

def test_weights_of_two_heads():
    fig = plot_weights([torch.tensor([1.,2.]), torch.tensor([1.5,2.5])])
    assert [(l.get_label(), list(l.get_ydata())) for l in fig.axes[0].lines]==[('G',[1,1.5]),('S',[2,2.5])]

def test_cmc_lines_are_sorted_by_rank():
    fig = plot_cmc({'a': {5:.9, 1:.5, 10:1.}, 'b': namedtuple('R','mAP cmc')(.25, {1:.3})})
    a,b = fig.axes[0].lines
    assert list(a.get_xdata())==[1,5,10] and list(a.get_ydata())==[.5,.9,1.] and b.get_label()=='b, mAP 0.250'

# ---- feature space ------------------------------------------------------------------------------------------------------------

def test_embedding_colours_are_identities_and_neighbours_stay():
    ids = torch.arange(3).repeat_interleave(8)
    f = torch.nn.functional.one_hot(ids, 16).float()*10 + torch.randn(24,16, generator=torch.Generator().manual_seed(0))
    fig = drawn(plot_embedding(f, ids)); dots = fig.axes[0].collections
    assert [len(o.get_offsets()) for o in dots]==[8]*3 and len({tuple(o.get_facecolors()[0]) for o in dots})==3
    assert [t.get_text() for t in fig.legends[0].get_texts()]==['0','1','2']
    xy = np.concatenate([o.get_offsets() for o in dots])
    d = np.linalg.norm(xy[:,None]-xy, axis=-1); np.fill_diagonal(d, np.inf)
    assert (ids[d.argmin(1)]==ids).float().mean()>.9

def test_36_identities_look_different():
    looks = [show._look(i) for i in range(36)]
    assert len({(o['color'],o['marker']) for o in looks})==36 and len({(o['color'],o['ls']) for o in looks[:18]})==18

def test_embedding_with_images_and_the_same_seed():
    f,ids = torch.rand(6,4),2**24 + np.arange(6)//2 # too large for float32
    a,b = (drawn(plot_embedding(f, ids, [image()]*6, seed=1)).axes[0] for _ in range(2))
    assert [i.get_extent() for i in a.images]==[i.get_extent() for i in b.images] and len(a.images)==6
    assert len({p.get_edgecolor() for p in a.patches})==3 and [t.get_text() for t in a.texts]==[str(i) for i in ids]

@pytest.mark.parametrize('figsize', [(5,5),(7,6)])
def test_thumbnails_stand_apart_within_the_axes(figsize):
    f,ids = torch.randn(48,8, generator=torch.Generator().manual_seed(0)),np.repeat(np.arange(6), 8)
    ax = drawn(plot_embedding(f, ids, [image()]*48, figsize=figsize)).axes[0]
    e = np.array([i.get_extent() for i in ax.images]); (x0,x1),(y0,y1) = ax.get_xlim(),ax.get_ylim()
    assert (e[:,0]>=x0-1e-6).all() and (e[:,1]<=x1+1e-6).all() and (e[:,2]>=y0-1e-6).all() and (e[:,3]<=y1+1e-6).all()
    both = [np.minimum(e[:,None,i+1], e[:,i+1])-np.maximum(e[:,None,i], e[:,i]) for i in (0,2)]
    covered = np.triu(np.minimum(*both).clip(0), 1)
    assert (covered>.02).sum()==0, 'inches'

def test_equal_features_are_refused():
    with pytest.raises(ValueError, match='All 5 features are the same'): plot_embedding(torch.ones(5,3), np.arange(5))

@pytest.mark.parametrize('n,m', [(3,3),(8,7)])
def test_embedding_of_too_little_is_refused(n, m):
    with pytest.raises(ValueError, match=f'{n} features and {m} identities'): plot_embedding(torch.rand(n,4), np.zeros(m))

# ---- distributions and tables ------------------------------------------------------------------------------------------------

def test_ap_histogram_leaves_out_queries_without_a_match():
    ax = drawn(plot_ap({'a': np.array([.2,.4,np.nan])})).axes[0]
    assert ax.get_legend().get_texts()[0].get_text()=='a, mean 0.300'
    with pytest.raises(ValueError, match='a: there is no finite AP'): plot_ap({'a': np.array([np.nan])})

@pytest.mark.parametrize('shift,common', [(0,100),(10,0)])
def test_overlap_of_distances_is_told(shift, common):
    a = np.linspace(0, 1, 500)
    assert drawn(plot_distances(a, a+shift)).axes[0].get_title(loc='left')==f'{common}% in common'
def test_half_an_overlap():
    a,b = np.linspace(0, 1, 3001),np.linspace(.5, 1.5, 3001)
    assert 48<=int(drawn(plot_distances(a, b)).axes[0].get_title(loc='left').split('%')[0])<=53
def test_distances_of_tensors_with_infinities():
    d = torch.rand(50); d[0] = torch.inf
    drawn(plot_distances(d, d))
    with pytest.raises(ValueError, match='same vehicle: there is no finite distance'): plot_distances(torch.tensor([]), d)

def test_a_table_shows_each_number_and_leaves_gaps():
    ax = drawn(plot_table(pd.DataFrame([[.1,np.nan],[1,.55]], index=[1,2], columns=[3,4]).rename_axis('query camera'))).axes[0]
    assert [t.get_text() for t in ax.texts]==['10','100','55'] and ax.get_ylabel()=='query camera'
    with pytest.raises(ValueError, match='empty'): plot_table(pd.DataFrame())

@pytest.mark.parametrize('draw', [lambda **kw: plot_rankings([image()], [[image()]*3], [[True,False,True]], **kw), lambda **kw: plot_parts(torch.rand(1,3,32,32), parts(B=1), **kw),
    lambda **kw: plot_attention(torch.rand(1,3,32,32), dict(after=torch.rand(1,3,4,4)), **kw), lambda **kw: plot_curves(pd.DataFrame(dict(epoch=[0,1], mAP=[.1,.2])), **kw),
    lambda **kw: plot_weights(np.ones((4,3)), **kw), lambda **kw: plot_cmc({'a': {1: .5, 2: .6}}, **kw), lambda **kw: plot_ap({'a': np.ones(3)}, **kw),
    lambda **kw: plot_distances(np.arange(9.), np.arange(9.), **kw), lambda **kw: plot_table(pd.DataFrame([[.5]]), **kw), lambda **kw: plot_embedding(torch.rand(8,4), np.arange(8), **kw)])
def test_every_figure_takes_its_size(draw):
    assert drawn(draw(figsize=(5,2))).get_size_inches().tolist()==[5,2]

def test_tiles_stay_square_in_a_given_size():
    fig = drawn(plot_rankings([image()], [[image()]*3], [[True,False,True]], figsize=(9,2)))
    b = fig.axes[0].transData.transform([(0,0),(1,1)])
    assert abs(b[1]-b[0])[0]==pytest.approx(abs(b[1]-b[0])[1])

def test_many_columns_shrink_to_a_page_and_a_given_size_is_kept():
    def width(k, **kw): return plot_rankings([image()], [[image()]*k], [[True]*k], dists=[[.5]*k], **kw).get_size_inches()[0]
    assert width(3)==pytest.approx(.95*(1.38+3*1.07)) and width(8)==pytest.approx(7.2) and width(8, size=.95)==pytest.approx(.95*(1.38+8*1.07))
    assert width(30)==pytest.approx(.6*(1.38+30*1.07)), 'no smaller than captions need'
