"""Ways to cut the pseudo labels, scored against rendered truth: mean IoU, seconds of one core, and what is taken for the vehicle below it

    python benchmarks/_grabcut.py nbs/results/grabcut.json 'drawn set'=synth_veri
"""
import sys, time
import cv2, numpy as np
from fastcore.parallel import parallel
from vehicle_reid.files import versions, write_json
from vehicle_reid.grabcut import _ellipse, _grabcut, _rgb
from vehicle_reid.truth import foreground_iou, read_truth

def at_size(mask, img): return cv2.resize(mask, img.shape[1::-1], interpolation=cv2.INTER_LINEAR)

def one(iters=1, size=192): return lambda img: _grabcut(img, size, size//6, iters, 0)[0]

def cut(canvas, rect, iters):
    cv2.setRNGSeed(0)
    mask = np.zeros(canvas.shape[:2], np.uint8)
    cv2.grabCut(canvas, mask, rect, np.zeros((1,65)), np.zeros((1,65)), iters, cv2.GC_INIT_WITH_RECT)
    return np.isin(mask, (cv2.GC_FGD, cv2.GC_PR_FGD))

def framed(rect, iters, passes=1, shade=1.):
    "GrabCut on 192 pixels in a border of 32, within `rect`; with a second pass, what both keep of the picture and of it turned by 180°; the outer half of the border below times `shade`"
    def of(img):
        small = cv2.resize(img, (192,192), interpolation=cv2.INTER_AREA)[...,::-1]
        canvas = cv2.copyMakeBorder(small, 32, 32, 32, 32, cv2.BORDER_REPLICATE)
        canvas[-16:] = (canvas[-16:]*shade).round()
        try:
            m = cut(canvas, rect, iters)
            if passes==2: m &= cut(np.ascontiguousarray(canvas[::-1,::-1]), rect, iters)[::-1,::-1]
        except cv2.error: return _ellipse(192)
        m = m[32:-32,32:-32]
        return m.astype(np.float32) if .05<m.mean()<.95 else _ellipse(192)
    return of

whole,span = (32,32,192,192),(32,32,224,224) # SPAN's rectangle touches two edges of the canvas
def inset(n): return (32+n, 32+n, 192-2*n, 192-2*n)
ways = {'the ellipse': lambda img: _ellipse(192), 'SPAN: two passes, 5 iterations': framed(span, 5, 2), 'two passes, symmetric rectangle, 5 iterations': framed(whole, 5, 2),
    'one pass, 5 iterations': one(5), 'one pass, 2 iterations': one(2), 'one pass, 1 iteration': one(), 'the same, rectangle 2 pixels further in': framed(inset(2), 1),
    'the same, 6 pixels further in': framed(inset(6), 1), 'SPAN\'s two passes, 1 iteration': framed(span, 1, 2), '128×128, 1 iteration': one(1, 128), '96×96, 1 iteration': one(1, 96), 'as we do, the border below half as bright': framed(whole, 1, shade=.5)}

def errors(mask, parts):
    "(pixels wrongly taken in, those of them that lie below the vehicle in the picture's lower half, pixels left out, pixels of the vehicle)"
    m,t = mask>=.5,parts>0
    under = (np.cumsum(t[::-1], 0)[::-1]==0) & (np.arange(len(t))[:,None]>=len(t)/2)
    return [int(o.sum()) for o in (m&~t, m&~t&under, ~m&t, t)]

def score(item):
    cv2.setNumThreads(1)
    path,parts = item
    img,out = _rgb(path),{}
    for n,f in ways.items():
        start = time.process_time(); mask = f(img)
        out[n] = time.process_time()-start, foreground_iou(at_size(mask, img), parts), errors(at_size(mask, img), parts)
    return out

if __name__=='__main__':
    file,*sets = sys.argv[1:]
    about,iou,wrong,seconds = {},{n: {} for n in ways},{n: {} for n in ways},{n: [] for n in ways}
    for name,path in (o.split('=', 1) for o in sets):
        truth = read_truth(path, n=100)
        done = parallel(score, list(zip(truth.paths, truth.parts)), n_workers=2, progress=False)
        about[name] = len(done)
        for n in ways:
            iou[n][name] = round(float(np.mean([o[n][1] for o in done])), 4); seconds[n] += [o[n][0] for o in done]
            more,under,less,all_ = np.sum([o[n][2] for o in done], 0)
            wrong[n][name] = {k: round(float(v), 4) for k,v in {'taken in': more/all_, 'of that below': under/more, 'left out': less/all_}.items()}
    write_json(file, dict(images=about, versions={**versions(), 'opencv': cv2.__version__}, iou=iou, wrong=wrong, seconds={n: round(float(np.mean(o)), 4) for n,o in seconds.items()}))
