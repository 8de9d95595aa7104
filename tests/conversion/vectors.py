"""Vectors of a student in PyTorch, and how close two lists of vectors are."""

import numpy as np
import torch


def hidden_of(student, sentences) -> tuple[np.ndarray, np.ndarray]:
    inputs = student.tokenizer(sentences, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden_BLD = student.model.base_model(**inputs).last_hidden_state.numpy()
    return hidden_BLD, inputs["attention_mask"].numpy()


def pooled_of(student, sentences) -> np.ndarray:
    hidden_BLD, mask_BL = hidden_of(student, sentences)
    return (hidden_BLD * mask_BL[:, :, None]).sum(axis=1) / mask_BL.sum(axis=1, keepdims=True)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(axis=-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))
