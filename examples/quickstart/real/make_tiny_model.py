"""Make a tiny Qwen3 with random weights and a byte-level BPE tokenizer, without downloading anything.

usage: python make_tiny_model.py DIR [longest context, default 32768]
"""

import os
import sys

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

CORPUS = ["the quick brown fox jumps over the lazy dog. " * 4, "Hello world, what is the capital city of France?",
          "user assistant system you are a helpful assistant", "0123456789 " * 8]
CHAT_TEMPLATE = ("{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
                 "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
VOCABULARY = 512


def tokenizer(context):
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=VOCABULARY, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                                        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"]))
    fast = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token=None, eos_token="<|im_end|>", pad_token="<|endoftext|>",
                                   additional_special_tokens=["<|im_start|>"])
    fast.chat_template = CHAT_TEMPLATE
    fast.model_max_length = context
    return fast


def main(directory, context=32768):
    os.makedirs(directory, exist_ok=True)
    fast = tokenizer(context)
    fast.save_pretrained(directory)
    torch.manual_seed(0)
    config = Qwen3Config(vocab_size=max(VOCABULARY, len(fast)), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
                         num_attention_heads=2, num_key_value_heads=2, head_dim=32, max_position_embeddings=context,
                         tie_word_embeddings=False, bos_token_id=None, pad_token_id=0,
                         eos_token_id=fast.convert_tokens_to_ids("<|im_end|>"))
    Qwen3ForCausalLM(config).to(torch.bfloat16).save_pretrained(directory)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:3]))
