"""Datasets, samplers, the loader, transforms and metrics."""

import numpy as np
import pytest

import ndarray as nd
from blocks import data, metric
from blocks.data import transforms


def test_array_dataset_and_loader():
    x, y = np.arange(20, dtype="float32").reshape(10, 2), np.arange(10)
    dataset = data.ArrayDataset(x, y)
    assert len(dataset) == 10
    assert dataset[3][1] == 3
    loader = data.DataLoader(dataset, batch_size=4)
    batches = list(loader)
    assert len(loader) == len(batches) == 3
    assert [b[0].shape for b in batches] == [(4, 2), (4, 2), (2, 2)]
    np.testing.assert_array_equal(batches[2][1].asnumpy(), [8, 9])
    assert batches[0][0].dtype == np.float32
    assert [len(b[1]) for b in data.DataLoader(dataset, 4, last_batch="discard")] == [4, 4]
    rollover = data.DataLoader(dataset, 4, last_batch="rollover")
    assert [len(list(rollover)) for _ in range(2)] == [2, 3]


def test_shuffling_follows_the_seed():
    loader = data.DataLoader(data.ArrayDataset(np.arange(50)), 50, shuffle=True)
    orders = []
    for seed in (1, 1, 2):
        nd.random.seed(seed)
        orders.append(next(iter(loader)).asnumpy().tolist())
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[2]) == list(range(50))


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_keep_the_order(workers):
    dataset = data.SimpleDataset(list(range(30))).transform(lambda v: (nd.full((2,), float(v)), v))
    values = [b[1].asnumpy().tolist() for b in data.DataLoader(dataset, 7, num_workers=workers)]
    assert [v for batch in values for v in batch] == list(range(30))


def test_worker_errors_reach_the_caller():
    dataset = data.SimpleDataset([1, 2, 0, 4]).transform(lambda v: 1 // v)
    with pytest.raises(ZeroDivisionError):
        list(data.DataLoader(dataset, 2, num_workers=2))


def test_dataset_methods():
    d = data.SimpleDataset(list(range(10)))
    odd = d.filter(lambda v: v % 2)
    assert [odd[i] for i in range(len(odd))] == [1, 3, 5, 7, 9]
    assert [d.shard(3, i)[0] for i in range(3)] == [0, 3, 6]
    assert len(d.take(4)) == 4
    assert d.transform(lambda v: v * 2, lazy=False)[3] == 6
    assert data.ArrayDataset([1, 2], [3, 4]).transform_first(lambda v: -v)[1] == (-2, 4)
    assert list(data.IntervalSampler(7, 3)) == [0, 3, 6, 1, 4, 2, 5]
    assert list(data.FilterSampler(lambda v: v > 7, d)) == [8, 9]
    with pytest.raises(ValueError, match="length"):
        data.ArrayDataset([1], [1, 2])
    with pytest.raises(ValueError, match="shuffle"):
        data.DataLoader(d, 2, shuffle=True, sampler=data.SequentialSampler(10))


def test_transforms():
    image = np.arange(24, dtype="uint8").reshape(2, 4, 3)
    out = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5, 0.5, 0.5), 2.0)])(nd.array(image))
    expected = (image.transpose(2, 0, 1) / 255 - 0.5) / 2
    np.testing.assert_allclose(out.asnumpy(), expected, rtol=1e-5)
    with pytest.raises(ValueError, match=r"\(H, W, C\)"):
        transforms.ToTensor()(nd.ones((2, 2)))


def test_metrics():
    scores = nd.array(np.array([[0.1, 0.9, 0.0], [0.6, 0.3, 0.1], [0.2, 0.3, 0.5]], "float32"))
    labels = nd.array(np.array([1, 1, 2]))
    accuracy = metric.Accuracy()
    assert np.isnan(accuracy.get()[1])
    accuracy.update([labels], [scores])
    assert accuracy.get() == ("accuracy", pytest.approx(2 / 3))
    top = metric.create("top_k_accuracy", top_k=2)
    top.update(labels, scores)
    assert top.get() == ("top_k_accuracy_2", 1.0)
    entropy = metric.create("ce")
    entropy.update(labels, scores)
    assert entropy.get()[1] == pytest.approx(-np.log([0.9, 0.3, 0.5]).mean(), rel=1e-5)
    both = metric.create(["mse", metric.Loss(), lambda label, p: float(np.abs(label - p).max())])
    assert isinstance(both, metric.CompositeEvalMetric)
    mse, rmse = metric.MSE(), metric.RMSE()
    for m in (mse, rmse):
        m.update(nd.zeros((3, 2)), nd.full((3, 2), 2.0))
    assert (mse.get()[1], rmse.get()[1]) == (4, 2)
    losses = metric.Loss()
    losses.update(None, [nd.array([1.0, 2.0]), nd.array([3.0])])
    assert losses.get()[1] == 2
    with pytest.raises(ValueError, match="accuracy"):
        metric.create("nothing")
    with pytest.raises(ValueError, match="labels"):
        metric.Accuracy().update(nd.ones((2,)), nd.ones((3,)))
