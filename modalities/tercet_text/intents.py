"""The built-in intents: what a user can want, how they ask for it, and the words that find an answer."""

from __future__ import annotations

from typing import Any


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# name -> fields of recipe.Intent; `ask` stands alone, `follow` comes after another question about the same term
INTENTS: dict[str, dict[str, Any]] = {
    "what_is": {
        "aspect": "what <term> is [|used ]for",
        "ask": (
            "[what|What exactly] is <term> [for|used for|good for|about]?",
            "[can|could] you [tell me|explain|describe] what <term> [is for|does|is]?",
            "I [came across|was given|keep hearing about|have to learn about] <term>[ today||, and it is new to me]. "
            "[What is it for|What does it do|What do I need to know about it]?",
        ),
        "follow": ("[And what|What] is it [for|good for], [in short|in a sentence|basically]?",),
        "keywords": _words(
            "used treats treat relieves relieve helps contains kind called means group against prevent prevents blocks "
            "block lowers lower slow slows belongs medicine painkiller antibiotic vitamin"
        ),
    },
    "dose": {
        "aspect": "how much <term> to [take|use]",
        "ask": (
            "how much of <term> [can|should|may] [I|one|somebody] [take|use] [in a day|at a time|per day|at once]?",
            "what is the [usual|right|normal|largest] [amount|dose|quantity] of <term>?",
            "how [often|many times a day] [do I take|should I take|can I have] <term>?",
        ),
        "follow": (
            "[And how|How] much of it [at a time|in a day|is too much]?",
            "[How often|How many times a day] [is that|would that be|do I take it]?",
        ),
        "keywords": _words("dose take tablet capsule mg ml grams milligrams daily maximum hours times once twice"),
    },
    "how_to_use": {
        "aspect": "how to use <term>",
        "ask": (
            "how [do I|should I|does one] use <term>[| properly| the right way]?",
            "[do I have to|should I|must I] [take|use] <term> [with food|before a meal|at a fixed time|with water]?",
            "[is there|are there any] [trick|steps|rule|instructions] for [using|taking|handling] <term>?",
        ),
        "follow": (
            "[With food or without|Before or after a meal|At what time of day]?",
            "And how do I [use|take|handle] it [properly|in practice|day to day]?",
        ),
        "general_rules": True,
        "keywords": _words("use swallow food meal water apply morning evening whole taken"),
    },
    "side_effects": {
        "aspect": "the [side effects|known problems] of <term>",
        "ask": (
            "[what|which] side effects [does|can|might] <term> [have|cause|bring]?",
            "[can|does|could] <term> [make me drowsy|cause a rash|upset the stomach|cause trouble|give me a headache]?",
            "what [should I watch out for|could go wrong|problems are known] with <term>?",
        ),
        "follow": (
            "[Anything|Is there anything] [to watch out for|I should look out for|that often goes wrong]?",
            "[And side effects|What about side effects|Does it have side effects]?",
        ),
        "keywords": _words("side effect drowsy dizzy rash nausea upset cause warning risk"),
    },
    "storage": {
        "aspect": "how to store <term>",
        "ask": (
            "[how|where] [do I|should I|does one] [store|keep] <term>?",
            "does <term> [have to|need to] [go|stay|be kept] [in the fridge|in the dark|cool|locked away]?",
            "how long does <term> [keep|last|stay good] [|once opened|after opening]?",
        ),
        "follow": (
            "[And where|Where] do I [keep|store] it?",
            "[Fridge or cupboard|Does it go in the fridge|How long does it keep once opened]?",
        ),
        "general_rules": True,
        "keywords": _words("store kept keep fridge refrigerator temperature cool dry opened expiry"),
    },
    "suitability": {
        "aspect": "who may use <term>",
        "ask": (
            "[can|may|should] [a child|a pregnant woman|my mother, who is 80,|somebody with kidney trouble|a beginner] "
            "[take|use|have] <term>?",
            "is <term> [suitable|safe|all right|a good choice] for [children|older people|everybody|a teenager]?",
            "who should [not take|stay away from|be careful with] <term>?",
        ),
        "follow": (
            "[Is it|Would it be] [safe|suitable|all right] for [children|older people|somebody who is pregnant]?",
            "[Who|And who] should [rather not|better not|never] [use|take] it?",
        ),
        "keywords": _words("child children pregnant breastfeeding kidney liver years older avoid"),
    },
    "combination": {
        "aspect": "combining <term> with other things",
        "ask": (
            "can I [take|use|combine] <term> [together with|and|along with] [alcohol|grapefruit|coffee|painkillers]?",
            "does <term> [mix with|get along with|clash with] [anything|other medicines|what I already take]?",
            "what [must not be combined|does not go|should I avoid] with <term>?",
        ),
        "follow": (
            "[Can I drink alcohol with it|What about alcohol|And with coffee]?",
            "[Does it clash with anything|Can I combine it with other things]?",
        ),
        "keywords": _words("together alcohol interact combine combined grapefruit avoid"),
    },
    "availability": {
        "aspect": "whether <term> is available",
        "ask": (
            "do you [have|stock|carry] <term>[| right now| at the moment| today]?",
            "[when|how soon] [can I|could I|will I be able to] [get|pick up|collect] <term>?",
            "is <term> [in stock|available|to be had] [today|this week|without ordering]?",
        ),
        "follow": (
            "[Is it in stock|Do you have it|Could I get it today]?",
            "[How|Where] do I [get|order] it?",
        ),
        "general_rules": True,
        "keywords": _words("stock order available deliver delivery collect collection prescription"),
    },
    "comparison": {
        "aspect": "how <term> and <other_term> differ",
        "ask": (
            "what is the difference between <term> and <other_term>?",
            "[which|which one] is [better|milder|stronger|right for me], <term> or <other_term>?",
            "how does <term> compare [with|to] <other_term>[| for everyday use]?",
        ),
        "keywords": _words("used stronger milder longer difference than instead unlike"),
        "needs": "two_terms",
    },
    "correction": {
        "aspect": "changing an entry about <term>",
        "ask": (
            "[there is a mistake|something is wrong|I found an error] in [my order|my record|my list]: it [says|has] "
            "<other_term>, [but it should be|it must be|and I asked for] <term>.",
            "[please|could you] [correct|change|mend] [my entry|my order|the note]: <term>, not <other_term>.",
            "I [ordered|wrote down|noted] <other_term> [by mistake|in error]; [I meant|it should read] <term>.",
        ),
        "reply": (
            "[Thank you for telling me|Good that you noticed|I see]. I [note|have noted] it: <term> instead "
            "of <other_term>. <expert_cap> [checks and confirms|will confirm] it [before anything changes|first].",
            "[Understood|Noted]: <other_term> [goes out|is wrong], <term> [goes in|is right]. [I can't change the "
            "entry myself|Changing entries isn't in my power], so I [pass this on|hand this] to <expert>.",
        ),
        "general_rules": True,
        "keywords": _words("mistake correct change wrong record order entry update"),
        "needs": "two_terms",
    },
    "hand_over": {
        "aspect": "speaking with a person about <term>",
        "ask": (
            "[can|could|may] I [speak|talk] to [a person|somebody|a human being] about <term>?",
            "I [would rather|want to|need to] [discuss|talk through] <term> with [a person|somebody who knows me].",
            "please [connect me|put me through] to [someone|a colleague of yours]; it is about <term>.",
        ),
        "reply": (
            "[Of course|Certainly|Gladly]. I [pass you on|hand you over] to <expert> and [write down|note] that it is "
            "about <term>, so that you [needn't repeat it|don't start again].",
            "[Sure|Yes], <expert> [will take over|takes it from here]. I [add|send along] a note: it is about <term>.",
        ),
        "general_rules": True,
        "keywords": _words("person contact phone call email hours counter staff pharmacist team"),
    },
}

# questions that documents rarely answer, for the edge case `no_answer`; the planner keeps one that finds nothing
OBSCURE: dict[str, dict[str, Any]] = {
    "inventor": {
        "aspect": "who [invented|discovered] <term>",
        "ask": ("who [invented|discovered|came up with] <term>[|, and when|, if I may ask]?",),
        "keywords": _words("invented inventor discovered discovery founder"),
    },
    "colour": {
        "aspect": "the colour of <term>",
        "ask": ("what colour [is <term>|does <term> have|is the box of <term>]?",),
        "keywords": _words("colour color white blue red yellow pink"),
    },
    "price_history": {
        "aspect": "what <term> used to cost",
        "ask": ("what did <term> cost [ten years ago|in 2015|before the last price change]?",),
        "keywords": _words("cost price euro dollar pound"),
    },
    "market_share": {
        "aspect": "how many people [use|buy] <term>",
        "ask": ("how many people [use|buy|ask for] <term> [in a year|in this country|worldwide]?",),
        "keywords": _words("million percent people worldwide popular"),
    },
    "name_origin": {
        "aspect": "where the name <term> comes from",
        "ask": ("where does the name <term> come from[|, do you know|? I always wondered]?",),
        "keywords": _words("named origin latin greek etymology"),
    },
}
