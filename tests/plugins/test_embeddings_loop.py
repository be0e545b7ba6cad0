"""Real plankton, by FiftyOne's own worker: vectors, map, index and clusters, then a name for a cluster."""

import fiftyone as fo
import fiftyone.operators as foo
import numpy as np

from tests.worker import result, schedule, wait, worker

PLUGIN = "@mbari/custom_embeddings"


def test_from_real_rois_to_labels(dataset, registry, pwssc, leaf_weights, tmp_path, monkeypatch):
    monkeypatch.delenv("MBARI_VOCABULARY", raising=False)
    names = [folder.name for folder in sorted(pwssc.iterdir()) if folder.is_dir()][:3]
    files = [file for name in names for file in sorted((pwssc / name).glob("*.png"))[:30]]
    dataset.add_samples([fo.Sample(filepath=str(file), true=file.parent.name) for file in files])
    dataset.classes["ground_truth"] = names
    dataset.save()
    (tmp_path / "gone.png").touch()
    dataset.add_sample(fo.Sample(filepath=str(tmp_path / "gone.png")))

    steps = [
        ("compute_embeddings", {"model": str(leaf_weights), "imgsz": 96}),
        ("visualize_embeddings", {"method": "umap", "similarity_key": "alike"}),
        ("cluster_embeddings", {"min_similarity": 0.95}),
    ]
    with worker(tmp_path / "log"):
        done = [result(wait(schedule(f"{PLUGIN}/{name}", dataset, **params))) for name, params in steps]
    computed, mapped, clustered = done
    dataset.reload()
    assert computed["counts"] == {"rois": 91, "written": 90, "unreadable": 1}
    assert dataset.match_tags("unreadable").values("filepath") == [str(tmp_path / "gone.png")]
    assert mapped["counts"]["samples"] == 90
    assert dataset.load_brain_results("embeddings_map").points.shape == (90, 2)
    vectors = np.stack(dataset.exists("embeddings").values("embeddings"))
    assert (vectors.dtype, vectors.shape) == (np.float32, (90, 1280))
    near = dataset.sort_by_similarity(dataset.first().id, brain_key="alike", k=5)
    assert near.first().id == dataset.first().id
    counts = clustered["counts"]
    assert counts["in_clusters"] + counts["noise"] == 90
    assert counts["without_vector"] == 1

    # The name of each exemplar, for the clusters that have one: most members are what their exemplar is.
    exemplars = dataset.load_saved_view("clusters: exemplars")
    for cluster, name in zip(*exemplars.values(["cluster.label", "true"]), strict=True):
        params = {"clusters": [cluster], "label": name, "write": "label"}
        foo.execute_operator(f"{PLUGIN}/label_clusters", {"dataset": dataset, "params": params})
    dataset.reload()
    labelled = dataset.exists("ground_truth")
    assert len(labelled) == counts["in_clusters"]
    right = [label == true for label, true in zip(*labelled.values(["ground_truth.label", "true"]), strict=True)]
    assert np.mean(right) > 0.5  # by chance it would be a third
