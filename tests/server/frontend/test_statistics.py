from tritonclient.grpc import service_pb2

from reelserve.server.frontend.statistics import added_up


def model(stats, name, *, count, last, batches, version="1"):
    """Statistics of a model whose numbers are all multiples of `count`."""
    found = stats.model_stats.add(
        name=name,
        version=version,
        last_inference=last,
        inference_count=count,
        execution_count=2 * count,
    )
    found.inference_stats.success.count = 3 * count
    found.inference_stats.success.ns = 4 * count
    found.inference_stats.queue.ns = 5 * count
    found.memory_usage.add(type="CPU", id=0, byte_size=100)
    for size in batches:
        row = found.batch_stats.add(batch_size=size)
        row.compute_infer.count, row.compute_infer.ns = count, size * count
    found.response_stats["0"].success.count = count
    return found


def response(*models):
    stats = service_pb2.ModelStatisticsResponse()
    for options in models:
        model(stats, **options)
    return stats.SerializeToString()


def test_added_up_passes_on_what_one_triton_says():
    assert added_up([b"as it is"]) == b"as it is"


def test_added_up_adds_the_numbers_of_equal_models():
    one = response(
        {"name": "denoiser", "count": 10, "last": 500, "batches": [1, 4]},
        {"name": "upsampler", "count": 1, "last": 7, "batches": []},
    )
    other = response({"name": "denoiser", "count": 2, "last": 400, "batches": [4, 8]})
    found = service_pb2.ModelStatisticsResponse.FromString(added_up([one, other]))
    denoiser, upsampler = found.model_stats

    assert (denoiser.name, denoiser.version, denoiser.last_inference) == ("denoiser", "1", 500)
    assert (denoiser.inference_count, denoiser.execution_count) == (12, 24)
    success = denoiser.inference_stats.success
    assert (success.count, success.ns, denoiser.inference_stats.queue.ns) == (36, 48, 60)
    assert denoiser.inference_stats.fail.count == 0
    rows = {row.batch_size: row.compute_infer for row in denoiser.batch_stats}
    assert {size: (r.count, r.ns) for size, r in rows.items()} == {
        1: (10, 10),
        4: (12, 48),
        8: (2, 16),
    }
    assert (upsampler.name, upsampler.inference_count) == ("upsampler", 1)


def test_added_up_knows_the_newest_use_whoever_comes_first():
    replies = [
        response({"name": "x", "count": 1, "last": last, "batches": []}) for last in (1, 9, 5)
    ]
    (found,) = service_pb2.ModelStatisticsResponse.FromString(added_up(replies)).model_stats
    assert (found.last_inference, found.inference_count) == (9, 3)


def test_added_up_keeps_versions_apart():
    replies = [
        response({"name": "x", "count": 1, "last": 1, "batches": [], "version": v}) for v in "12"
    ]
    found = service_pb2.ModelStatisticsResponse.FromString(added_up(replies)).model_stats
    assert [(one.version, one.inference_count) for one in found] == [("1", 1), ("2", 1)]
