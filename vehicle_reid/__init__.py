"""Find one vehicle among millions of camera crops. `vehicle_reid` implements *Weakly-supervised Part-Attention and Mentored Networks for Vehicle Re-Identification*:

- **PANet** finds vehicle parts with no part labels: GrabCut pseudo masks, channel recalibration, clustered boxes;
- **PMNet** learns global and part features, its Students mentored by Teachers that see only the parts; at inference Teachers and PANet are gone;
- **homoscedastic uncertainty** weighs the three identity losses, and the learnt weights rank.

It is a fastai library: a `Learner` with all its verbs; callbacks for part masks, part transfer and uncertainty weights; notebooks that are the source and the documentation. Each row of the paper's ablation tables is one argument, or a callback left out.

```python
from vehicle_reid.all import *
path  = synth_veri('data/synth')
dls   = ReIDDataLoaders.from_veri(path, size=96, p=8, k=4)
learn = reid_learner(dls, 'resnet10t', pretrained=False).to_bf16()
learn.fit_two_stage(panet_epochs=5, pmnet_epochs=20)
learn.evaluate()
```

Modules:

- `vehicle_reid.attention`: A second, closer look inside a part: which channels, and where, at three scales
- `vehicle_reid.backbone`: Any timm network, cut before its last stage, with that stage's stride set to 1
- `vehicle_reid.channels`: Part-relevant channel recalibration: channels that look at the same part pull together
- `vehicle_reid.cli`: `vehicle-reid demo | doctor | train | evaluate | tables | embed | search | export`: the learner's verbs without a line of Python
- `vehicle_reid.components`: The largest connected component of each of many small maps
- `vehicle_reid.data`: P identities times K images, augmented one by one, in fastai's `DataLoaders`
- `vehicle_reid.datasets`: Whatever the layout on disk, one table with a row for each image, checked before any work starts
- `vehicle_reid.doctor`: Everything that can be known of a data set before a night of training is spent on it
- `vehicle_reid.export`: A trained PMNet as one file that any ONNX runtime reads, compared with PyTorch before it is kept
- `vehicle_reid.files`: A file is the old one or the new one, never half of either; and a number says what it was made with
- `vehicle_reid.gallery`: An index of embeddings: images go in, a table of the nearest ones comes out
- `vehicle_reid.grabcut`: A rough foreground mask for every image, with nothing annotated
- `vehicle_reid.hul`: Three ID losses find their own weights; the same weights rank at inference
- `vehicle_reid.interpret`: Which queries fail, with which vehicle they are confused, between which cameras
- `vehicle_reid.learner`: One fastai `Learner` around PMNet, with PANet at its side: train in two stages, evaluate, embed, look
- `vehicle_reid.losses`: Identity and batch-hard triplet terms, kept by name
- `vehicle_reid.metrics`: mAP, CMC and mINP of a ranking, under each data set's protocol
- `vehicle_reid.monitor`: mAP and CMC as columns of the training table, for trackers to watch
- `vehicle_reid.panet`: A network that learns identities and, from GrabCut's rough masks alone, where the vehicle is
- `vehicle_reid.parts`: Algorithm 1: a box for every channel, K clusters of boxes, one box from each, cut from the foreground
- `vehicle_reid.pmnet`: The re-identification network: one trunk, a global head, K mentored part streams, and one vector out
- `vehicle_reid.processes`: One learner on several GPUs: each process its own batches, one gradient, every file written once
- `vehicle_reid.rerank`: k-reciprocal encoding: who also counts you among their nearest?
- `vehicle_reid.show`: Rankings, parts, attention, curves and feature maps as matplotlib figures, from plain data
- `vehicle_reid.streams`: One part, two views of it: the Student sees the whole map, the Teacher only the part
- `vehicle_reid.synth`: A data set worth training on, rendered from a seed: vehicles of the same model and paint that differ in a sticker, a hub cap or a roof rack
- `vehicle_reid.tables`: Every row of Tables I to VII as arguments; rows × seeds trained, resumable, one JSON line a run; rendered beside the paper's numbers
- `vehicle_reid.transfer`: The Teacher has seen the part; on average over a batch, the Student shall look where the Teacher does
- `vehicle_reid.truth`: Rendered vehicles know where their parts are; how often do the parts that nobody labelled agree?
- `vehicle_reid.words`: The largest component of a small map, a row at a time as one machine word"""

__version__ = "0.0.1"
