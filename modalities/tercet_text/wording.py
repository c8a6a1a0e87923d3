"""What people and the assistant say between the questions: greetings, answers, edge cases, good-byes."""

from __future__ import annotations

from tercet_text.phrases import Rules

GREETINGS: Rules = {
    "plain": ("[Hello|Hi|Good morning|Good afternoon|Hi there|Good evening][!|.]", ""),
    "formal": ("[Good day|Good afternoon|Good morning|Dear Sir or Madam|Greetings][!|.]", "[Good day|Good evening]."),
    "casual": ("[hey|hi|heya|yo|hiya|hello][!|,|]", ""),
    "terse": ("", "", "[Hello|Morning]."),
    "learner": ("[Hello|Hello please|Good day|Hi]. ", "Hello."),
}
FRAMES: Rules = {
    "plain": ("", "", "[My question|Here is my question|What I want to know]: ", "[Tell me|Just wondering]: "),
    "formal": ("[Would you kindly tell me|May I ask|Might I ask you]: ", "[I should like to know|Please advise]: ", ""),
    "casual": ("", "[so|ok so|anyway], ", "[any idea|do you know|quick q]: "),
    "terse": ("", "", "[Question|Query|Re]: "),
    "learner": ("I want to ask: ", "[Please say me|Please tell]: ", ""),
}

ASSISTANT: Rules = {
    "ack": ("", "", "[Good question|Happy to help|Thanks for asking|Sure|Of course|Let me look|Certainly].",
            "[I looked it up|I checked|I had a look] [for you|just now|in the documents]."),
    "cite": (
        "[According to|As stated in|Going by|Following] <title>: “<quote>”",
        "<title> [says|states|puts it this way|has this]: “<quote>”",
        "[Here is|This is] what <title> [has|says|holds] on <term>: “<quote>”",
        "[I found|There is] [this|a line on it|the answer] in <title>: “<quote>”",
        "[In|From] <title>, [word for word|literally|to quote it]: “<quote>”",
        "“<quote>” [That is from|So says|You find that in|That stands in] <title>.",
    ),
    "partial": (
        "[My documents mention|The documents speak of] <term>, but not <aspect>. [The nearest line|What comes closest] "
        "in <title>: “<quote>”",
        "[On <aspect>|About <aspect>] I have nothing. <title> only [says|has]: “<quote>”",
        "<aspect_cap> is not [covered|described|in there]. [All I have on <term>|The only line on <term>] is from "
        "<title>: “<quote>”",
    ),
    "general": (
        "[There is nothing|I have nothing|I find nothing] on <term> in particular. [In general|As a rule], <title> "
        "says: “<quote>”",
        "<title> doesn't [name|mention] <term>, but [it has a general line|gives a rule for all cases]: “<quote>”",
        "[Not for <term> alone|Nothing specific to <term>], [only a general line|just a general rule] in "
        "<title>: “<quote>”",
    ),
    "none": (
        "[I looked|I searched|I went through them], [but|and] my documents say nothing about <aspect>. "
        "[I'd rather not guess|I won't guess|I don't want to make something up].",
        "[Sorry|I'm sorry|Unfortunately], <aspect> [is not in my documents|isn't in what I have].",
        "[I can't find|There is no line on|I have no entry about] <aspect>[ in what I have| in the documents|], "
        "[so I can't answer that|so I'd better not answer|and a guess would not help you].",
    ),
    "next": (
        "", "", "[Please ask|You can ask|Best to ask] <expert> [about it|for that|before you decide].",
        "<expert_cap> [can tell you|will know|can check it][ for certain| for your case|].",
        "[Shall I|Should I|Would you like me to] [pass your question on to|hand this to|note it for] <expert>?",
    ),
    "again": (
        "[That is the same line as before|It is the line I quoted above]; [there is no more on <term>|nothing else "
        "on <aspect>] in <title>.",
        "[I have nothing beyond what I quoted|The documents add nothing to that line] [on <aspect>|about <aspect>].",
    ),
    "offer": ("", "", "", "[Anything else|What else can I look up|Is there more I can find for you]?",
              "[Does that help|Is that what you needed|Does that answer it]?"),
    "welcome": ("[Hello|Hi|Good day]! [What can I look up for you|How can I help|What would you like to know]?",
                "[Welcome|Hello], [I'm listening|go ahead|ask away]. [What is it about|Which product is it about]?"),
    "which": ("[Which one|Which product|What exactly] do you mean? [The name is on the label|I need the name].",
              "[To look it up|Before I look|So that I find the right entry] I need [the name|its name]. [What is it "
              "called|What does the label say]?",
              "[I'd like to help|Gladly], [but|only] [I don't know which one you have|you haven't said which one]. "
              "[Can you name it|Could you tell me the name]?"),
    "either": ("[These are two different things|They aren't the same]: <term> and <other_term>. Which [name|one] is on "
               "[the box|the label|your note]?",
               "[I have both|I know both names], <term> and <other_term>, [but an answer for one is wrong for the "
               "other|and mixing them up would be bad]. [Can you check|Could you look at the label]?"),
    "did_you_mean": ("[I have no “<misspelt>”|“<misspelt>” is not in my list|I can't find “<misspelt>”]. [Do you mean|"
                     "Did you mean|Could it be] <term>?",
                     "[Just to be sure|Let me make sure]: [by|with] “<misspelt>” you mean <term>[, right|, yes|]?"),
    "switch": ("[No problem|That happens|Thanks for the correction|Got it]: <term>, not <other_term>.",
               "[All right|Fine], [then forget <other_term>|so it is about <term>]."),
    "refuse": ("[That is outside what I do|I can't help with that|That isn't something I can answer]. I [answer "
               "questions|look things up] [in the documents I have|from our documents]"
               "[; ask me about <term> any time|].",
               "[I'm afraid|Sorry], I only [answer from|work with] [these|my] documents, [and that isn't in "
               "them|and they don't go there]. [Shall we stay with|Back to] <term>?"),
    "hold": ("I [understand|see] [that you want a clear word|you need a decision], but I [won't|can't] go beyond what "
             "the documents say. <expert_cap> [can decide that with you|is the one to ask].",
             "[A yes or no from me would be a guess|I'd be guessing], and [with <term>|here] a guess can do harm. "
             "[Please talk to|Please check with] <expert>."),
    "calm": ("[I'm sorry|I apologise] [that it took so long|for the trouble|that this has been so frustrating]. "
             "[I pass it on to|I bring in] <expert>, [with a note of what you asked|so you needn't explain it again].",
             "[You're right to be annoyed|I understand the anger|That should not happen]. [What I can do now|Here is "
             "my offer]: <expert> [calls you back|looks at it today]."),
    "sources": ("It [comes from|stands in|is taken from] <title> (file <document>). [You can check it there|The words "
                "are exactly as written].",
                "[The source is|My source is] <title>, file <document>[; I quoted it word for word|]."),
    "no_source": ("[There is no source|I have no source], because I [found nothing|gave no fact]: [the documents are "
                  "silent on it|it isn't in the documents].",
                  "[I quoted nothing|I named no fact], so there is [nothing to cite|no source to name]. "
                  "[An honest gap|A gap] is [all I have|what I can report]."),
    "short": ("[In short|Briefly|In one line]: [see <title>, it has the line on <term>|the line in <title> is all "
              "there is on <term>].",),
    "short_none": ("[In short|Briefly|In one line]: [not in my documents; ask <expert>|the documents don't say, "
                   "<expert> may know].",),
    "bye": ("[You're welcome|My pleasure|Gladly|Any time]! [Come back when you need more|Take care|All the best|Have a "
            "good day|Good luck with <term>|Goodbye].",
            "[Glad to help|Happy I could help|That's what I'm here for]. [Until next time|Bye for now|See you|Have a "
            "nice day]."),
}  # fmt: skip

USER: Rules = {
    "hello": ("[are you there|is anybody there|can you help me|may I ask you something]?",
              "[I need some help|I have a question|I want to ask something]."),
    "name_it": ("[Ah, sorry|Oh|Right|Of course]: <term>.", "[It says|The label says|On the box it says] <term>.",
                "[It is|That would be|I mean] <term>[, I have it in front of me|, I just looked|]."),
    "vague": ("[this one|this product|the one I was given|the one in my bag]",),
    "either": ("[I forgot the name|I'm not sure of the name|I mix up the names]: it is <term> or <other_term>.",
               "[Either <term> or <other_term>|<term>, or was it <other_term>], [I always mix them up|I can't tell]."),
    "meant": ("[Sorry|Wait|Oh no|Hold on], [I meant|it's|I should have said] <term>, not <other_term>.",
              "[My mistake|I misread]: [the box says|it is about|I have] <term>[, not the other one|]."),
    "yes": ("[Yes|Yes, exactly|Right|That's the one|Yes, that one], <term>.",
            "[Exactly|Correct|Yes][, sorry for the spelling|, I can never spell it|, typing on my phone|]."),
    "switch": ("[Before I forget|Something else|Other topic|By the way]: ", "[And now for <other_term>|Different "
               "thing, <other_term>]: "),
    "out_of_scope": (
        "[By the way, who|Do you know who] [won the match|will win the election|won the race] [last night|on Sunday]?",
        "Can you [write|do] my [homework|cover letter|tax return] [too|as well|while we're at it]?",
        "What will the weather be like [tomorrow|at the weekend|on Friday]?",
        "Which [shares|lottery numbers|coins] should I [buy|pick] [now|this week]?",
        "[Tell me a joke|Sing me a song|Write me a poem][ about my cat|, I'm bored|].",
        "[What do you think of|Who is better,] [my neighbour's new car|the mayor|my favourite team]?",
        "Can you book me a [table|flight|hotel room|taxi] for [two|tonight|Saturday]?",
    ),
    "pressure": (
        "[Just tell me|Come on, tell me], [yes or no|is it fine or not]! [I won't tell anybody|I take the blame].",
        "[Can't you make an exception|Forget the documents for once], what would YOU do [in my place|with <term>]?",
        "[My friend takes twice as much|Everybody does it|The internet says it's fine], so [it's all right|I can do "
        "that, too], [isn't it|yes|right]?",
    ),
    "angry": (
        "This is [ridiculous|a joke|unbelievable]! [I've asked three times|I've been passed around all day] and "
        "[got no real answer|still know nothing].",
        "[Are you even reading this|Is anybody working there]? [I want a proper answer|I want to complain] "
        "about <term>!",
        "[I'm fed up|I've had enough]. [Every time I ask about <term> I get the same|Nobody takes responsibility for "
        "<term>].",
    ),
    "source": ("[Where does that come from|What is your source|Where is that written|Which document is that from]?",
               "[Can I read that somewhere|Can you show me where it says so|How do you know that]?"),
    "short": ("[Shorter, please|In one sentence, please|What is the short version]?",
              "[Too long for me|I didn't get all that], [can you say it in a few words|what does it come down to]?"),
    "thanks": ("[Thank you|Thanks|Many thanks|Thanks a lot][!|, that helps.|, that is all.|. Bye!]",
               "[Great|Good|Perfect|All right], [that's all I needed|I know enough now|that settles it]. [Thanks|Bye]!",
               "[OK|Fine], [I'll do that|I'll think about it|I'll ask there]. [Thank you|Thanks for your time]."),
    "grumble": ("[Well|Hm|Fine], [not what I hoped for|that was short], but [thanks|all right].",
                "[I'll see|We'll see]. [Thanks anyway|Thanks all the same]."),
}  # fmt: skip
