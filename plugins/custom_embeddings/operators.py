"""The operators of this plugin."""

from .cluster_embeddings import ClusterEmbeddings
from .compute_embeddings import ComputeEmbeddings
from .label_clusters import LabelClusters
from .visualize_embeddings import VisualizeEmbeddings

OPERATORS = (ComputeEmbeddings, VisualizeEmbeddings, ClusterEmbeddings, LabelClusters)
