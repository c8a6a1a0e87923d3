"""Dialogs: a scenario grammar, a language model following the same plan, or an assistant that calls tools."""

from tercet.modality import Modality

modality = Modality(
    name="text",
    extra="text",
    recipe_model="tercet_text.recipe:TextRecipe",
    payload="tercet_text.payload:payload",
    plan="tercet_text.plan:plan",
    generators={
        "grammar": "tercet_text.grammar:GrammarDialogs",
        "llm": "tercet_text.llm:LlmDialogs",
        "endpoint": "tercet_text.llm:EndpointDialogs",
        "tools": "tercet_text.tool_dialogs:ToolDialogs",
        "examples": "tercet_text.examples:Examples",
    },
    gates={"schema": "tercet_text.gates:Schema", "repetition": "tercet_text.gates:Repetition"},
    corpus_gates={"near_duplicates": "tercet_text.gates:NearDuplicates"},
    show="tercet_text.show:show",
    tasks={"causal-lm": "tercet_text.causal_lm:CausalLm"},
    checks="tercet_text.checks:checks",
)
