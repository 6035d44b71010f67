"""Points of geoopt and HypLL: the same points, distances and gradients as ours, under their curvature conventions."""

import importlib.util
import inspect
import math
import sys
import warnings

import pytest
import torch
from hypll.manifolds.euclidean import Euclidean
from hypll.manifolds.poincare_ball import Curvature
from hypll.manifolds.poincare_ball import PoincareBall as HypllBall
from hypll.nn import HLinear
from hypll.tensors import ManifoldTensor, TangentTensor

from hypclip.errors import HypclipError, InputError, MissingExtraError
from hypclip.geometry import lorentz, poincare
from hypclip.geometry.interop import from_geoopt, from_hypll, to_geoopt, to_hypll
from tests.support import reference
from tests.support.checks import each_curvature
from tests.support.reference import exact

with warnings.catch_warnings():
    # geoopt compiles with torch.jit.script when it is imported.
    warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)
    import geoopt

RADII = (1e-3, 0.1, 1.0, 3.0, 5.0)
LIBRARIES = ("geoopt lorentz", "geoopt poincare", "hypll")
each_library = pytest.mark.parametrize("library", LIBRARIES)
each_curv = pytest.mark.parametrize("curv", [0.1, 1.0, 10.0])


def there_and_back(library, x, curv):
    match library.split():
        case ["geoopt", model]:
            return from_geoopt(*to_geoopt(x, curv, model))
        case _:
            return from_hypll(to_hypll(x, curv))


def their_dist(library, x, y, curv):
    match library.split():
        case ["geoopt", model]:
            points, manifold = to_geoopt(x, curv, model)
            return manifold.dist(points, to_geoopt(y, curv, model)[0])
        case _:
            points = to_hypll(x, curv)
            return points.manifold.dist(points, to_hypll(y, curv))


def ball(value, **options):
    """A HypLL ball whose parameter is set as it is."""
    return HypllBall(Curvature(value, constraining_strategy=lambda c: c, **options))


# Points and distances -------------------------------------------------------------------------------------------------


@each_library
@each_curvature
def test_points_and_curvature_come_back(library, curv):
    x = reference.points(curv, 8, RADII)
    back, same = there_and_back(library, x, curv)
    assert back.dtype == same.dtype == curv.dtype
    assert same.shape == ()
    eps = torch.finfo(curv.dtype).eps
    torch.testing.assert_close(same, curv, rtol=4 * eps, atol=0)
    # A ball of this dtype keeps the gap 1 − c|p|² = 1/cosh²(ρ/2) to eps. Measured at radius 5: 2e-14 and 1e-5.
    worst = 0 if library == "geoopt lorentz" else 4 * eps * math.cosh(5 / 2) ** 2
    assert reference.relative_rows(back, exact(x)).max() <= worst


@each_library
@each_curv
@pytest.mark.parametrize(
    ("separations", "bounds"),
    [
        # acosh(1 + d²/2) of the Lorentz form loses eps cosh²ρ/d², the gap of a ball eps cosh²ρ/d (measured 2e-6, 1e-9).
        pytest.param((1e-3,), {"geoopt lorentz": 6e-6, "geoopt poincare": 4e-9, "hypll": 4e-9}, id="near"),
        # Measured 3e-13.
        pytest.param((1.0, 5.0), dict.fromkeys(LIBRARIES, 2e-12), id="apart"),
    ],
)
def test_distances_are_ours(library, curv, separations, bounds):
    curv = torch.tensor(curv, dtype=torch.float64)
    x, y = reference.pairs(curv, 8, RADII, separations, each=16)
    within = curv.sqrt() * lorentz.radius(y, curv) < 5.01
    x, y = x[within], y[within]
    torch.testing.assert_close(their_dist(library, x, y, curv), lorentz.dist(x, y, curv), rtol=bounds[library], atol=0)


@each_library
@each_curv
def test_the_origin_and_batches_of_any_shape(library, curv):
    x = reference.points(torch.tensor(curv), 4, RADII, each=6).reshape(5, 3, 2, 4)
    assert there_and_back(library, x, curv)[0].shape == x.shape
    zero = torch.zeros(2, 4)
    assert torch.equal(there_and_back(library, zero, curv)[0], zero)


@each_curv
def test_a_ball_tangent_at_the_origin_is_half_the_lorentz_tangent(curv):
    v = reference.vectors((0.1, 1.0, 1.5), 4, torch.float64)
    x = lorentz.exp_map0(v, curv)
    points, hyperboloid = to_geoopt(x, curv)
    torch.testing.assert_close(hyperboloid.logmap0(points)[..., 1:], v, rtol=1e-9, atol=0)
    points, disk = to_geoopt(x, curv, "poincare")
    torch.testing.assert_close(disk.logmap0(points), v / 2, rtol=1e-11, atol=0)
    points = to_hypll(x, curv)
    tangent = TangentTensor(v / 2, manifold=points.manifold)
    torch.testing.assert_close(points.manifold.expmap(tangent).tensor, points.tensor, rtol=1e-12, atol=0)


# Curvature ------------------------------------------------------------------------------------------------------------


@each_curvature
def test_curvature_conventions(curv):
    x = reference.points(curv, 4, RADII)
    close = {"rtol": 4 * torch.finfo(curv.dtype).eps, "atol": 0}
    points, hyperboloid = to_geoopt(x, curv)
    assert torch.equal(hyperboloid.k, 1 / curv)
    assert points.shape == (*x.shape[:-1], 5)
    assert torch.equal(points[..., 1:], x)
    torch.testing.assert_close(points[..., :1], lorentz.time_component(x, curv), **close)
    points, disk = to_geoopt(x, curv, "poincare")
    torch.testing.assert_close(disk.c, curv, **close)
    assert torch.equal(points, poincare.from_lorentz(x, curv))
    tensor = to_hypll(x, curv)
    torch.testing.assert_close(tensor.manifold.c(), curv, **close)
    assert tensor.man_dim == 1
    assert torch.equal(tensor.tensor, points)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("curv", [1e-3, 19.9, 20.1, 100.0])
def test_a_curvature_beyond_the_reach_of_their_constructors(curv, dtype):
    want, x = torch.tensor(curv, dtype=dtype), torch.zeros(1, 2, dtype=dtype)
    for got in (to_geoopt(x, curv, "poincare")[1].c, to_hypll(x, curv).manifold.c()):
        torch.testing.assert_close(got, want, rtol=4 * torch.finfo(dtype).eps, atol=0)


def test_what_their_constructors_do_with_a_curvature():
    """The faults that interop works around; when this fails, a simpler interop will do."""
    assert Curvature(1.0)().item() == pytest.approx(1.3133, abs=1e-4)
    assert Curvature(torch.tensor(0.1, dtype=torch.float64)).value.dtype == torch.float32
    assert geoopt.PoincareBall(c=torch.tensor(100.0)).c.item() == math.inf
    given = torch.tensor(1.0)
    geoopt.PoincareBall(c=given)
    assert given.item() != 1
    curv = torch.tensor(1.0)
    to_geoopt(torch.zeros(1, 2), curv, "poincare")
    assert curv.item() == 1


@pytest.mark.parametrize(("dtype", "edge"), [(torch.float32, 6.2), (torch.float64, 12.2)])
def test_their_balls_pull_far_points_back(dtype, edge):
    curv = torch.tensor(0.25, dtype=dtype)
    near, far = (reference.points(curv, 4, (edge + more,)) for more in (-0.1, 0.1))
    for x, kept in ((near, True), (far, False)):
        points, disk = to_geoopt(x, curv, "poincare")
        tensor = to_hypll(x, curv)
        assert torch.equal(disk.projx(points), points) is kept
        assert torch.equal(tensor.project().tensor, points) is kept


def test_manifolds_made_by_others():
    p = poincare.from_lorentz(reference.points(torch.tensor(2.0), 4, RADII), 2.0)
    x, curv = from_hypll(ManifoldTensor(p.T, manifold=ball(2.0), man_dim=0))
    assert curv.item() == 2
    torch.testing.assert_close(x, poincare.to_lorentz(p, 2.0))
    x, curv = from_geoopt(p, geoopt.PoincareBallExact(c=torch.tensor(2.0)))
    torch.testing.assert_close(curv.item(), 2.0, rtol=1e-6, atol=0)
    points = geoopt.ManifoldParameter(torch.tensor([[math.sqrt(4.25), 0.5, 0.0]]), manifold=geoopt.Lorentz([4.0]))
    x, curv = from_geoopt(points, points.manifold)
    assert curv.item() == 0.25
    assert torch.equal(x, torch.tensor([[0.5, 0.0]]))


def test_hypll_layers_take_points_on_their_own_manifold():
    manifold = HypllBall(Curvature(1.0))
    layer = HLinear(4, 3, manifold=manifold)
    for seed in (0, 1):
        x = reference.points(torch.tensor(1.0), 4, (0.5, 1.0), seed=seed)
        x, curv = from_hypll(layer(to_hypll(x, manifold.c(), manifold)))
        assert x.shape == (16, 3)
        assert curv.item() == manifold.c().item()
    with pytest.raises(InputError, match=r"curv is 1, but the manifold has c = 1\.31326"):
        to_hypll(x, 1.0, manifold)


# Gradients ------------------------------------------------------------------------------------------------------------


@each_library
@each_curv
def test_gradients_flow_through_the_points(library, curv):
    curv = torch.tensor(curv, dtype=torch.float64, requires_grad=True)
    x, y = (reference.points(curv.detach(), 4, (0.1, 1.0, 3.0), each=4, seed=seed)[1:] for seed in (1, 2))
    leaves = [x.requires_grad_(), y.requires_grad_()]
    ours = torch.autograd.grad(lorentz.dist(x, y, curv.detach()).sum(), leaves)
    theirs = torch.autograd.grad(their_dist(library, x, y, curv).sum(), [*leaves, curv], allow_unused=True)
    assert theirs[2] is None
    for got, want in zip(theirs, ours, strict=False):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-12)
    back, _ = there_and_back(library, x, curv)
    upstream = torch.randn_like(back)
    (through,) = torch.autograd.grad(back, x, upstream)
    torch.testing.assert_close(through, upstream, rtol=1e-11, atol=1e-12)


def test_a_curvature_that_their_manifold_learns_has_a_gradient():
    p = torch.full((1, 2), 0.1)
    hyperboloid, disk = geoopt.Lorentz(torch.tensor(1.0), learnable=True), geoopt.PoincareBall(learnable=True)
    _, curv = from_geoopt(torch.tensor([[1.0, 0.0]]), hyperboloid)
    assert torch.autograd.grad(curv, hyperboloid.k)[0].item() == -1
    x, curv = from_geoopt(p, disk)
    assert all(torch.autograd.grad(value.sum(), disk.isp_c, retain_graph=True)[0].item() > 0 for value in (x, curv))
    learned = ball(1.0, requires_grad=True)
    x, curv = from_hypll(ManifoldTensor(p, manifold=learned))
    assert all(torch.autograd.grad(value.sum(), learned.c.value, retain_graph=True)[0] > 0 for value in (x, curv))


# Mistakes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "missing"),
    [
        (lambda: to_geoopt(torch.zeros(1, 2), 1.0), "geoopt"),
        (lambda: from_geoopt(torch.zeros(1, 2), None), "geoopt"),
        (lambda: to_hypll(torch.zeros(1, 2), 1.0), "hypll"),
        (lambda: from_hypll(None), "hypll"),
    ],
)
def test_a_missing_library_names_the_extra(monkeypatch, call, missing):
    for name in [name for name in sys.modules if name.split(".")[0] == missing]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=rf"{missing}.*pip install 'hypclip\[interop\]'") as caught:
        call()
    assert isinstance(caught.value, HypclipError)
    assert isinstance(caught.value, ImportError)


def test_neither_library_is_imported_before_it_is_needed(monkeypatch):
    for missing in ("geoopt", "hypll"):
        monkeypatch.setitem(sys.modules, missing, None)
    spec = importlib.util.find_spec("hypclip.geometry.interop")
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


@pytest.mark.parametrize("to", [to_geoopt, to_hypll])
def test_bad_points_and_curvatures(to):
    x = torch.zeros(2, 3)
    for curv in (0.0, -1.0, torch.tensor(-1.0), torch.tensor(math.nan), torch.tensor(math.inf), torch.ones(2)):
        with pytest.raises(InputError, match=r"must be (one )?positive"):
            to(x, curv)
    with pytest.raises(InputError, match=r"needs float32 or float64 points, got torch\.bfloat16"):
        to(x.bfloat16(), 1.0)


def test_bad_manifolds():
    x = torch.zeros(2, 3)
    # The tests check the Literal in the signature, which users do not.
    with pytest.raises(InputError, match="model must be 'lorentz' or 'poincare', got 'klein'"):
        inspect.unwrap(to_geoopt)(x, 1.0, "klein")
    with pytest.raises(InputError, match="must be a geoopt Lorentz or PoincareBall, got Sphere"):
        from_geoopt(x, geoopt.Sphere())
    with pytest.raises(InputError, match=r"one positive number .*, got \[1\.0, 1\.0\]"):
        from_geoopt(x, geoopt.Lorentz(torch.ones(2)))
    with pytest.raises(InputError, match=r"one positive number .*, got -1\.0"):
        from_geoopt(x, geoopt.Lorentz(-1.0))
    with pytest.raises(InputError, match=r"one positive number .*, got -1\.0"):
        from_hypll(ManifoldTensor(x, manifold=ball(-1.0)))
    for wrong in (x, ManifoldTensor(x, manifold=Euclidean())):
        with pytest.raises(InputError, match="ManifoldTensor on a PoincareBall"):
            from_hypll(wrong)


def test_points_off_the_manifold():
    manifold = to_geoopt(torch.zeros(1, 2), 0.5)[1]
    points = lorentz.time_component(torch.ones(1, 2), 0.5)
    for wrong in (torch.ones(1, 2), torch.cat([torch.ones(1, 2), points], -1), torch.full((1, 3), math.nan)):
        with pytest.raises(InputError, match="the time component must come first"):
            from_geoopt(wrong, manifold)
    with pytest.raises(InputError, match="not inside the ball"):
        from_geoopt(torch.ones(1, 2), to_geoopt(torch.zeros(1, 2), 1.0, "poincare")[1])
    with pytest.raises(InputError, match="not inside the ball"):
        from_hypll(ManifoldTensor(torch.ones(1, 2), manifold=ball(1.0)))
