"""The built-in personas and moods: who is asking, and in what frame of mind."""

from __future__ import annotations

from typing import Any

PERSONAS: dict[str, dict[str, Any]] = {
    "customer": {
        "describe": "a member of the public without special knowledge",
        "lead": (
            "[I have|There is] a [quick|short|small] question.",
            "I [was in|stopped by] [yesterday|last week|on Monday] and forgot to ask something.",
            "[My neighbour|A friend|My sister] said [you could help|to ask here].",
        ),
    },
    "caregiver": {
        "describe": "somebody who looks after a relative",
        "lead": (
            "I [look after|take care of] my [father|mother|grandfather|aunt|husband].",
            "It is [not for me but for|about] my [mother|son|daughter|uncle], who lives with [me|us].",
            "I [manage|keep track of] everything for my [parents|grandmother].",
        ),
    },
    "professional": {
        "describe": "a professional who is short of time and wants the facts",
        "register": "terse",
        "lead": (
            "[Checking|Verifying] something [for a client|before a meeting|for a colleague].",
            "[On shift|Between two appointments|At the counter], [so briefly|so in short].",
            "[Need|Looking for] the [documented|official] [line|wording] on this.",
        ),
    },
    "new_colleague": {
        "describe": "somebody in the first weeks of a new job",
        "lead": (
            "I'm [new on the team|in my first week here|still learning the ropes].",
            "[Somebody asked me this|A customer wanted to know] and I [didn't know|wasn't sure].",
            "My [trainer|supervisor|mentor] told me to [look this up|check with you].",
        ),
    },
    "student": {
        "describe": "a student who writes casually and wants to understand",
        "register": "casual",
        "lead": (
            "[Studying|Revising] for [an exam|a test] [tomorrow|next week].",
            "[Writing|Doing] a [paper|small project|presentation] [on this|about it].",
            "[Just curious|Asking for class].",
        ),
    },
    "older_caller": {
        "describe": "an older person who writes politely and at length",
        "register": "formal",
        "lead": (
            "I hope [you don't mind my asking|I have come to the right place].",
            "I am [seventy-eight|eighty-one|seventy-four] and [my eyes are not what they were|the print is so small].",
            "My [late wife|late husband|daughter] [always took care of these things|used to look this up for me].",
        ),
    },
    "non_native": {
        "describe": "somebody who writes in a second language, in simple sentences",
        "register": "learner",
        "lead": (
            "Sorry for my English.",
            "I [am living|live] here [two|three|five] months only.",
            "I [not understand|do not understand] [the paper|the letter|the label].",
        ),
    },
    "expert": {
        "describe": "an expert who uses precise words and expects a source",
        "register": "formal",
        "lead": (
            "I would like [a reference|the source] [as well|with the answer].",
            "[For a review|For our records], I need [an exact statement|the wording of your documents].",
            "I [know the general picture|am familiar with the background]; I need [the detail|your own wording].",
        ),
    },
}

MOODS: dict[str, dict[str, Any]] = {
    "calm": {"describe": "calm and matter-of-fact", "lead": ("",)},
    "friendly": {
        "describe": "friendly and chatty",
        "lead": (
            "[Hope you are having a good day|Lovely that you are there|Nice to have somebody to ask]!",
            "[I'm sure you can help|You helped me so well last time].",
        ),
        "tail": (
            "[Thanks a lot in advance|You are a star|Much appreciated]!",
            "[No hurry at all|Whenever you have a moment].",
        ),
    },
    "worried": {
        "describe": "worried, wants to be reassured",
        "lead": (
            "I'm [a bit|rather|quite] [worried|nervous|uneasy] [about this|and can't stop thinking about it].",
            "[I couldn't sleep over this|I don't want to make a mistake|I fear I did something wrong].",
        ),
        "tail": (
            "[Is that dangerous|Should I be worried|Is that something serious]?",
            "[Please be honest with me|I'd rather be safe].",
        ),
    },
    "impatient": {
        "describe": "impatient and short of time",
        "lead": (
            "[Quick one|I only have a minute|I'm in a hurry].",
            "[I've been waiting for a while|Third time I ask today|Nobody could tell me so far].",
        ),
        "tail": (
            "[Short answer, please|Just the facts|No long story, please].",
            "[Be quick|As fast as you can], please.",
        ),
    },
    "confused": {
        "describe": "confused by contradicting information",
        "lead": (
            "[I'm confused|I'm lost|I don't get it].",
            "[One person says this and another says that|I read two different things|The leaflet confuses me].",
        ),
        "tail": (
            "[What is right now|Which one is true|Can you make it simple]?",
            "[Please explain it slowly|Step by step, please].",
        ),
    },
    "tired": {
        "describe": "tired, writes little",
        "lead": (
            "[It's been a long day|Long night|Sorry, I'm worn out].",
            "[I can't think straight any more|My head is spinning].",
        ),
        "tail": ("[Simple words, please|Keep it simple].", "[I just want to go to bed|Then I can rest]."),
    },
}
