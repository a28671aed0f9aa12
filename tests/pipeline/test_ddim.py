import numpy as np
import pytest

from reelserve.pipeline.ddim import DDIMSpec


@pytest.mark.parametrize(("steps", "message"), [(0, "is 0; the limits are 1 to 1000"), (1001, "")])
def test_schedule_refuses_when_steps_are_out_of_range(steps, message):
    with pytest.raises(ValueError, match=f"num_inference_steps {message}".strip()):
        DDIMSpec().schedule(steps, tokens=1)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_steps_reach_the_data_when_the_prediction_is_exact(prediction):
    rng = np.random.default_rng(0)
    data, noise = rng.standard_normal((2, 4, 3, 2, 2), dtype=np.float32)
    spec = DDIMSpec(prediction_type=prediction)
    schedule = spec.schedule(10, tokens=1)
    alphas = spec.alphas_cumprod()[schedule.timesteps.astype(int)]
    latents = np.sqrt(alphas[0]) * data + np.sqrt(1 - alphas[0]) * noise
    for index, alpha in enumerate(alphas):
        exact = {
            "epsilon": noise,
            "sample": data,
            "v_prediction": np.sqrt(alpha) * noise - np.sqrt(1 - alpha) * data,
        }[prediction]
        latents, denoised = schedule.step(index, latents, exact)
        np.testing.assert_allclose(denoised, data, atol=2e-4)

    assert latents.dtype == np.float32
    np.testing.assert_allclose(latents, data, atol=2e-4)
