"""Everything at once, in fastai's habit. Written by hand: nbdev generates the modules, not this list.

fastai's own star import comes first, so that one line brings `SaveModelCallback`, `CSVLogger`, `Path`, `np` and `plt` as its users expect;
where a name exists twice (`RandomErasing`), ours, imported later, stands."""
from fastai.vision.all import *
from vehicle_reid.backbone import *
from vehicle_reid.panet import *
from vehicle_reid.attention import *
from vehicle_reid.streams import *
from vehicle_reid.pmnet import *
from vehicle_reid.losses import *
from vehicle_reid.transfer import *
from vehicle_reid.hul import *
