"Training batches from JPEG files: our loaders beside a plain torch DataLoader with torchvision's transforms, and the decoding alone"
import os, tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import torch
from PIL import Image
from torchvision import transforms as T
from _bench import Case, main
from training import images
from vehicle_reid.data import ReIDDataLoaders

VERI = dict(image_train=(37778,0,575), image_query=(1678,575,200), image_test=(11579,575,200)) # images, first vehicle, vehicles
BIG = []
def veri_size():
    "A folder with as many JPEG files as VeRi-776, each a crop of its own of a drawn image"
    if not BIG:
        BIG.append(tempfile.TemporaryDirectory())
        drawn = [Image.open(p).convert('RGB') for p in sorted((images('full')/'image_train').iterdir())]
        for folder,(n,first,vids) in VERI.items():
            out = Path(BIG[0].name)/folder; out.mkdir()
            for i in range(n):
                im = drawn[i%len(drawn)]
                im.crop((i//7%5, i//11%5, im.width-i//3%5, im.height-i//5%5)).save(out/f'{first+i%vids:04}_c{1+i//vids%19:03}_{i:08}_0.jpg', quality=92)
    return Path(BIG[0].name)

def setup(scale):
    size,n,workers = dict(full=(256,60,os.cpu_count()), quick=(256,16,os.cpu_count()), tiny=(64,2,0))[scale] # n batches
    path = veri_size() if scale=='full' else images(scale)
    dls = ReIDDataLoaders.from_veri(path, size=size, p=4, k=8, num_workers=workers)
    return dict(dls=dls, size=size, workers=workers, paths=list(dls.train_items.path), batches=n)

def ours(d, dl=None):
    n = 0
    while n<d['batches']*32:
        for b in dl or d['dls'].train:
            n += len(b[0])
            if n>=d['batches']*32: break
    return n

def up_to_the_device(d):
    "What is left to a CPU where there is a GPU: that one normalises, moves and erases"
    return ours(d, d['dls'].train.new(after_batch=[]))

class Folder(torch.utils.data.Dataset):
    def __init__(self, paths, tfms): self.paths,self.tfms = paths,tfms
    def __len__(self): return len(self.paths)
    def __getitem__(self, i): return self.tfms(Image.open(self.paths[i]).convert('RGB'))

def torchvision(d):
    "The Bag-of-Tricks recipe: resize, flip, pad and crop, normalise, erase"
    s,n = d['size'],d['batches']*32
    tfms = T.Compose([T.Resize((s,s)), T.RandomHorizontalFlip(), T.Pad(10), T.RandomCrop((s,s)), T.ToTensor(), T.Normalize([.485,.456,.406], [.229,.224,.225]), T.RandomErasing(.5)])
    paths = (d['paths']*(n//len(d['paths'])+1))[:n]
    dl = torch.utils.data.DataLoader(Folder(paths, tfms), 32, shuffle=True, num_workers=d['workers'])
    return sum(len(b) for b in dl)

def decoding(d):
    "Decoding and resizing alone, by as many threads as there are loader processes; Pillow lets them run at once"
    n = d['batches']*32
    def one(i): Image.open(d['paths'][i%len(d['paths'])]).convert('RGB').resize((d['size'],d['size']), Image.Resampling.BILINEAR)
    with ThreadPoolExecutor(max(d['workers'], 1)) as ex: list(ex.map(one, range(n)))
    return n

def agree(r):
    assert r['ours']==r['ours, up to the device']==r['torch and torchvision'], r
    return f"{r['ours']} images each"

if __name__=='__main__':
    main(Case('training batches', setup, {'ours': ours, 'ours, up to the device': up_to_the_device, 'torch and torchvision': torchvision, 'decoding alone': decoding}, 'torch and torchvision', agree, 'decoding alone', memory='full'))
