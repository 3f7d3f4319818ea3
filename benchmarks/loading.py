"Training batches from JPEG files: our loaders beside a plain torch DataLoader with torchvision's transforms, and the decoding alone"
import os
import torch
from PIL import Image
from torchvision import transforms as T
from _bench import Case, main
from training import images
from vehicle_reid.data import ReIDDataLoaders

def setup(scale):
    size,n,workers = dict(full=(256,4,os.cpu_count()), quick=(256,2,os.cpu_count()), tiny=(64,1,0))[scale]
    path = images(scale)
    dls = ReIDDataLoaders.from_veri(path, size=size, p=4, k=8, num_workers=workers)
    return dict(dls=dls, size=size, epochs=n, workers=workers, paths=list(dls.train_items.path), batches=len(dls.train))

def ours(d):
    return sum(len(b[0]) for _ in range(d['epochs']) for b in d['dls'].train)

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
    return sum(len(b) for _ in range(d['epochs']) for b in dl)

def decoding(d):
    n = d['batches']*32*d['epochs']
    for i in range(n): Image.open(d['paths'][i%len(d['paths'])]).convert('RGB').resize((d['size'],d['size']), Image.Resampling.BILINEAR)
    return n

def agree(r):
    assert r['ours']==r['torch and torchvision'], r
    return f"{r['ours']} images each"

if __name__=='__main__':
    main(Case('training batches', setup, {'ours': ours, 'torch and torchvision': torchvision, 'decoding in one thread': decoding}, 'torch and torchvision', agree, memory=False))
