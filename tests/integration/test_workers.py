"""Two gloo workers against one process with all the images: each added loss, and the gradient, must be the same.

What mmdet's own losses do is stated too. ATSS and GFL count at least one positive an image, which does not depend on the workers. FCOS
and VFNet average the count over workers and then take at least one a worker, so that a batch without any positive weighs less on more
workers. FoveaBox, RepPoints and RetinaNet do not look beyond their worker.
"""

import functools

import pytest

from salt_lab.spec.parts import SALT_HOSTS
from salt_lab.testing.workers import ADDED, alone, comparable_model, difference, together

pytestmark = pytest.mark.integration

#: enough objects for the normalisers to be above their floor (1 a worker) where a host weighs its boxes by a poor first guess
FOUR_IMAGES = [
    [[2.0, 2.0, 94.0, 62.0], [0.0, 0.0, 60.0, 62.0], [8.0, 40.0, 26.0, 58.0], [42.0, 2.0, 60.0, 18.0]],
    [[30.0, 4.0, 95.0, 60.0], [0.0, 0.0, 70.0, 40.0], [60.0, 8.0, 78.0, 26.0], [2.0, 2.0, 18.0, 20.0]],
    [[10.0, 6.0, 60.0, 50.0]],
    [[30.0, 20.0, 80.0, 60.0], [2.0, 2.0, 30.0, 40.0]],
]
BATCHES = {"positives on both": FOUR_IMAGES, "none on the second": [*FOUR_IMAGES[:2], [], []], "none anywhere": [[], [], [], []]}
#: Hosts whose own normaliser stays within its worker.
EACH_FOR_ITSELF = ["fovea", "reppoints", "retinanet"]
#: Hosts whose own class loss counts at least one positive per worker.
AT_LEAST_ONE_A_WORKER = ["fcos", "fcos_plain", "vfnet"]
#: Where mmdet's own losses, too, are those of one process.
EXACT = [
    (host, case)
    for host in SALT_HOSTS
    for case in BATCHES
    if host not in EACH_FOR_ITSELF and not (host in AT_LEAST_ONE_A_WORKER and case == "none anywhere")
]
CLOSE = 1e-5
each_host = pytest.mark.parametrize("host", SALT_HOSTS)
each_case = pytest.mark.parametrize("case", BATCHES)


@functools.cache
def found(host):
    """Batch -> (what two workers found, what one process found). The workers are started once a host."""
    shared_out = together(host, list(BATCHES.values()))
    model = comparable_model(host)
    return {name: (ranks, alone(model, boxes)) for (name, boxes), ranks in zip(BATCHES.items(), shared_out, strict=True)}


def mean(ranks, name):
    return sum(rank.losses[name] for rank in ranks) / len(ranks)


def own(losses):
    """The host's own losses."""
    return {name: value for name, value in losses.items() if name not in ADDED}


@each_host
@each_case
def test_the_added_losses_are_those_of_one_process(host, case):
    ranks, single = found(host)[case]
    assert {name: mean(ranks, name) for name in ADDED} == pytest.approx({name: single.losses[name] for name in ADDED}, rel=CLOSE)
    assert (min(single.losses[name] for name in ADDED) > 0) == (case != "none anywhere")


@each_host
@each_case
def test_the_gradient_of_the_added_losses_is_that_of_one_process(host, case):
    ranks, single = found(host)[case]
    assert all(difference(rank.added_gradient, single.added_gradient) < CLOSE for rank in ranks)


@pytest.mark.parametrize(("host", "case"), EXACT)
def test_every_loss_and_the_whole_gradient_are_those_of_one_process(host, case):
    """DistributedDataParallel's own average, as in training."""
    ranks, single = found(host)[case]
    assert {name: mean(ranks, name) for name in single.losses} == pytest.approx(single.losses, rel=CLOSE)
    assert all(difference(rank.gradient, single.gradient) < CLOSE for rank in ranks)


@each_host
@each_case
def test_all_workers_take_the_same_step(host, case):
    ranks, _ = found(host)[case]
    assert difference(ranks[0].gradient, ranks[1].gradient) == 0


@pytest.mark.parametrize("host", EACH_FOR_ITSELF)
@each_case
def test_a_host_that_looks_no_further_than_its_worker_loses_as_if_alone(host, case):
    model = comparable_model(host)
    for number, rank in enumerate(found(host)[case][0]):
        by_itself = alone(model, BATCHES[case], slice(2 * number, 2 * number + 2))
        assert own(rank.losses) == pytest.approx(own(by_itself.losses), rel=CLOSE)


@pytest.mark.parametrize("host", AT_LEAST_ONE_A_WORKER)
def test_without_any_positive_a_class_loss_counts_one_a_worker(host):
    ranks, single = found(host)["none anywhere"]
    assert mean(ranks, "loss_cls") == pytest.approx(single.losses["loss_cls"] / 2, rel=CLOSE)


def test_below_the_floor_the_added_losses_shrink_with_the_hosts_box_loss():
    """GFL weighs boxes by their score, 0.01 at first. Each worker divides by at least 1, in mmdet's box loss and so in ours."""
    fresh = dict(spread=0.0, class_bias=-4.6)
    (ranks,), single = together("gfl", [FOUR_IMAGES], **fresh), alone(comparable_model("gfl", **fresh), FOUR_IMAGES)
    for name in ("loss_bbox", *ADDED):
        assert mean(ranks, name) == pytest.approx(single.losses[name] / 2, rel=CLOSE), name
