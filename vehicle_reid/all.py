"Every name at once, in fastai's habit: `from vehicle_reid.all import *`"
# Written by hand: nbdev generates the modules, not this list.
# fastai's own star import comes first, so that one line brings `SaveModelCallback`, `CSVLogger`, `Path`, `np` and `plt` as its users expect;
# where a name exists twice (`RandomErasing`), ours, imported later, stands.
from fastai.vision.all import *
from vehicle_reid.files import *
from vehicle_reid.synth import *
from vehicle_reid.datasets import *
from vehicle_reid.data import *
from vehicle_reid.doctor import *
from vehicle_reid.processes import *
from vehicle_reid.components import *
from vehicle_reid.backbone import *
from vehicle_reid.grabcut import *
from vehicle_reid.panet import *
from vehicle_reid.channels import *
from vehicle_reid.parts import *
from vehicle_reid.truth import *
from vehicle_reid.attention import *
from vehicle_reid.streams import *
from vehicle_reid.pmnet import *
from vehicle_reid.export import *
from vehicle_reid.losses import *
from vehicle_reid.transfer import *
from vehicle_reid.hul import *
from vehicle_reid.metrics import *
from vehicle_reid.rerank import *
from vehicle_reid.show import *
from vehicle_reid.monitor import *
from vehicle_reid.interpret import *
from vehicle_reid.learner import *
from vehicle_reid.gallery import *
from vehicle_reid.tables import *
