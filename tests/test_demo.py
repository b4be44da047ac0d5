"""The demo, shortened: its data, training, two devices, export to a process without model code, pictures."""

import numpy as np
import pytest

pytest.importorskip("sklearn")

import ndarray as nd
from tutorials import demo


@pytest.fixture(scope="module")
def digits():
    return demo.load_digits()


@pytest.fixture(scope="module")
def trained(digits):
    """A net trained for two epochs on a part of the digits, of which the last batch is smaller than the others."""
    return demo.train("hybridized", digits[0][:729], digits[1][:729], epochs=2, hybridized=True)


def test_the_split_is_fixed_and_disjoint(digits):
    x_train, y_train, x_test, y_test = digits
    assert (x_train.shape, x_test.shape) == ((1437, 1, 28, 28), (360, 1, 28, 28))
    assert (x_train.dtype, y_train.dtype) == ("float32", "int32")
    seen = {image.tobytes() for image in x_train}
    assert not any(image.tobytes() in seen for image in x_test)
    assert y_test[:10].tolist() == demo.load_digits()[3][:10].tolist()
    assert abs(float(x_train.mean())) < 1e-5
    assert float(x_train.std()) == pytest.approx(1, abs=1e-5)


def test_training_learns(trained, digits):
    assert len(trained.seconds) == 2
    assert trained.losses[1] < trained.losses[0]
    assert demo.accuracy(trained.net, digits[2], digits[3]) > 0.5


def test_eager_and_hybridized_training_begin_alike(digits):
    x, y = digits[0][:40], digits[1][:40]
    eager, hybridized = (demo.train("test", x, y, epochs=1, hybridized=h) for h in (False, True))
    assert eager.losses == pytest.approx(hybridized.losses, rel=1e-5)
    assert demo.difference(eager.net, hybridized.net) < 1e-5


def test_two_devices_reach_the_parameters_of_one(digits):
    x, y = digits[0][:77], digits[1][:77]  # batches of 32, 32 and 13, which is odd
    one, two = (demo.train_parallel(x, y, devices, epochs=2) for devices in (demo.DEVICES[:1], demo.DEVICES))
    assert [len(p.list_data()) for p in two.collect_params().values()] == [2] * 10
    assert demo.difference(one, two) < 1e-12


def test_a_process_without_model_code_gives_the_same_answers(trained, digits, tmp_path):
    images = digits[2][:50]
    served, report = demo.serve(trained.net, images, tmp_path)
    scores = trained.net(nd.array(images)).asnumpy()
    assert report["model code"] == []
    assert report["self test"] < 1e-5
    np.testing.assert_allclose(served, scores, rtol=0, atol=1e-5 * np.abs(scores).max())
    np.testing.assert_array_equal(served.argmax(axis=1), scores.argmax(axis=1))


def test_batches_hold_moved_images():
    image = np.arange(28 * 28, dtype=np.float32).reshape(1, 1, 28, 28)
    loader = demo.make_loader(np.repeat(image, 40, axis=0), np.arange(40, dtype=np.int32))
    (x, y), (rest, _) = loader
    assert (x.shape, y.shape, rest.shape, x.dtype) == ((32, 1, 28, 28), (32,), (8, 1, 28, 28), "float32")
    moved = {m.tobytes(): m[0] for m in x.asnumpy()}
    assert 5 < len(moved) <= 25
    for m in moved.values():
        assert (m[5:20, 5:20] - image[0, 0, 5:20, 5:20]).std() == 0  # the same picture, moved
        assert abs((m - image[0, 0])[10, 10]) <= 2 * 28 + 2


def test_pictures_are_drawn(trained, digits, tmp_path):
    pytest.importorskip("matplotlib")
    import hybrid
    from tutorials import pictures

    images = nd.array(digits[2][:50])
    scores = trained.net(images).asnumpy()
    trained.net.export(tmp_path / "lenet", images)
    graph, explanation = hybrid.load(tmp_path / "lenet").graph, trained.net.explain(images)
    program = explanation.programs[0]
    owner = pictures.owners(graph, program.kernels)
    computed = [graph.equations[i].op.name for i in sorted(owner)]
    assert computed.count("convolution") == 2
    assert computed.count("dot_general") == 3
    assert computed.count("relu") == 4
    for draw in (lambda p: pictures.draw_digits(digits[2][:50], scores, digits[3][:50], p),
                 lambda p: pictures.draw_program(graph, program, p)):
        draw(tmp_path / "picture.png")
        assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
