"""mmdet registry modules of the lab. Importing this package registers them: ``custom_imports = dict(imports=['salt_lab.models'])``.

Where mmcv comes without compiled ops, the portable ones are put in place first.
"""

from salt_lab.ops.portable import install as _install_portable_ops

_install_portable_ops()

from salt_lab.models.gflv2 import GFLv2Head  # noqa: E402
from salt_lab.models.hosts.atss import SALTATSSHead  # noqa: E402
from salt_lab.models.hosts.fcos import SALTFCOSHead  # noqa: E402
from salt_lab.models.hosts.fovea import SALTFoveaHead  # noqa: E402
from salt_lab.models.hosts.gfl import SALTGFLHead  # noqa: E402
from salt_lab.models.hosts.gflv2 import SALTGFLv2Head  # noqa: E402
from salt_lab.models.hosts.reppoints import SALTRepPointsHead  # noqa: E402
from salt_lab.models.hosts.retinanet import SALTRetinaHead  # noqa: E402
from salt_lab.models.hosts.vfnet import SALTVFNetHead  # noqa: E402
from salt_lab.models.operator import SALT  # noqa: E402
from salt_lab.models.salt_net import SALTNetHead  # noqa: E402
from salt_lab.models.weights import register as _register_initialiser  # noqa: E402

_register_initialiser()

__all__ = [
    "SALT",
    "GFLv2Head",
    "SALTATSSHead",
    "SALTFCOSHead",
    "SALTFoveaHead",
    "SALTGFLHead",
    "SALTGFLv2Head",
    "SALTNetHead",
    "SALTRepPointsHead",
    "SALTRetinaHead",
    "SALTVFNetHead",
]
