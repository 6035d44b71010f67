import asyncio
import threading

import pytest
import torch
from fastapi.testclient import TestClient
from serve_helpers import app_at, encoded, quadrants

from hypclip import HypCLIP, ModelConfig
from hypclip.errors import ConfigError
from serve.engine import ModelEngine

TOWERS = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}


def tiny(geometry="lorentz"):
    torch.manual_seed(0)
    model = HypCLIP(ModelConfig(TOWERS, geometry=geometry, curv_init=0.5))
    model.model_id = "tiny-1"
    return model.eval()


def test_a_real_model_end_to_end(tmp_path):
    model = tiny()
    image = quadrants()
    with ModelEngine(model) as engine, TestClient(app_at(tmp_path, engine)) as client:
        engine.warm_up()
        info = client.get("/model").json()
        assert (info["model"], info["dim"], info["geometry"]) == ("tiny-1", 16, "lorentz")
        assert info["curv"] == pytest.approx(0.5)
        assert info["logit_scale"] == pytest.approx(1 / 0.07)
        inputs = ["a dog", {"image": encoded(image)}]
        data = client.post("/embed", json={"inputs": inputs}).json()["data"]
        expected = torch.cat([model.embed_text(["a dog"]), model.embed_image([image])])
        torch.testing.assert_close(torch.tensor([d["embedding"] for d in data]), expected)
        points = [{"id": "image", "image": encoded(image)}, {"id": "text", "text": "a dog"}]
        assert client.put("/collections/default/points", json={"points": points}).json()["count"] == 2
        hits = client.post("/retrieve", json={"query": {"image": encoded(image)}, "modality": "image"}).json()["hits"]
        assert [h["id"] for h in hits] == ["image"]
        assert hits[0]["distance"] == pytest.approx(0, abs=1e-5)
        scores = client.post("/classify", json={"inputs": inputs, "labels": ["dog", "cat"]}).json()["data"]
        assert [sum(s["scores"].values()) for s in scores] == pytest.approx([1, 1])


def test_a_model_on_the_sphere_is_refused_at_start(tmp_path):
    with ModelEngine(tiny("sphere")) as engine, pytest.raises(ConfigError, match=r"geometry 'sphere'.*needs 'lorentz'"):
        app_at(tmp_path, engine)


def test_the_event_loop_turns_while_the_model_runs():
    released = threading.Event()
    model = tiny()

    def slow(texts):
        assert released.wait(timeout=20)
        return torch.zeros(len(texts), 16)

    model.embed_text = slow

    async def call():
        with ModelEngine(model) as engine:
            running = asyncio.create_task(engine.embed_text(["a"]))
            await asyncio.sleep(0.05)
            assert not running.done()
            released.set()
            assert (await running).shape == (1, 16)

    asyncio.run(call())
