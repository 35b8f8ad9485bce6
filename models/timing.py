"""The time base of everything: pictures, latents and the two rates of sound. Imports nothing."""

FPS = 25  # pictures a second
FRAMES_PER_LATENT = 4  # of every latent but the first of a stream, which is one picture
SAMPLE_RATE = 16_000  # Hz, of the sound that models hear
SAMPLES_PER_FRAME = SAMPLE_RATE // FPS  # 640
SAMPLES_PER_LATENT = FRAMES_PER_LATENT * SAMPLES_PER_FRAME  # 2560
SOUND_RATE_HZ = 48_000  # of the sound that people hear
FRAME_SAMPLES = SOUND_RATE_HZ // FPS  # 1920
