import pytest
import torch

from models.sampling import euler, guided, noised


def test_path_runs_from_noise_to_data():
    clean, noise = torch.randn(2, 3, 1, 4, 4), torch.randn(2, 3, 1, 4, 4)
    assert torch.equal(noised(clean, noise, torch.zeros(2)), noise)
    assert torch.equal(noised(clean, noise, torch.ones(2)), clean)


@pytest.mark.parametrize("steps", [1, 2, 5, 30])
def test_a_perfect_denoiser_gives_the_data_in_any_number_of_steps(steps):
    clean, noise = torch.randn(1, 3, 2, 4, 4), torch.randn(1, 3, 2, 4, 4)
    assert torch.allclose(euler(lambda latents, t: clean, noise, steps), clean, atol=1e-5)


def test_steps_follow_the_probability_flow_of_gaussian_data():
    torch.manual_seed(0)
    noise = torch.randn(1, 1, 1, 200, 200)

    def posterior_mean(latents, t):  # data of deviation 2
        t = float(t)
        return latents * t * 4 / (t * t * 4 + (1 - t) ** 2)

    few, many = (euler(posterior_mean, noise, steps).std() for steps in (1, 200))
    assert few < 0.1  # one step is the conditional mean
    assert abs(many - 2) < 0.05


def test_guidance_goes_on_from_the_unconditional_through_the_conditional():
    a, b, latents, t = torch.randn(4, 3)

    def conditional(latents, t):
        return a + latents * t

    def unconditional(latents, t):
        return b + latents * t

    assert torch.allclose(guided(conditional, unconditional, 1.0)(latents, t), conditional(latents, t), atol=1e-6)
    expected = b + 3 * (a - b) + latents * t
    assert torch.allclose(guided(conditional, unconditional, 3.0)(latents, t), expected, atol=1e-5)


def test_no_steps_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        euler(lambda latents, t: latents, torch.zeros(1, 1, 1, 1, 1), 0)
