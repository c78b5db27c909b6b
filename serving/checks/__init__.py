"""The checks application: relevance and risk of ads, judged by a language model and stored."""
