#!/usr/bin/env escript
%% SPDX-License-Identifier: Apache-2.0
%% Writes the documentation of the public modules to DIRECTORY/chunks, in the format of EEP 48. See build-shell-docs.sh.
-mode(compile).

main([Directory]) ->
    Public = [File || File <- filelib:wildcard("src/*.erl"), is_public(File)],
    Format = [{doclet, edoc_doclet_chunks}, {layout, edoc_layout_chunks}],
    ok = edoc:files(Public, Format ++ [{dir, Directory}, {preprocess, true}, {includes, ["include"]}]),
    [ok = finish(Chunk) || Chunk <- filelib:wildcard(filename:join([Directory, "chunks", "*.chunk"]))].

%% @private of a module stands before its name.
is_public(File) ->
    {ok, Text} = file:read_file(File),
    [Head, _] = string:split(Text, "-module("),
    string:find(Head, "@private") =:= nomatch.

%% What edoc writes suits the shell of OTP 25. iex wants a signature to be one text and examples in code, and
%% newer ones know nothing but Markdown, which OTP has since 27.
finish(File) ->
    {ok, Chunk} = file:read_file(File),
    {docs_v1, Anno, Language, Html, Module, Metadata, Entries} = binary_to_term(Chunk),
    {Format, Convert} =
        case code:ensure_loaded(edoc_html_to_markdown) of
            {module, _} -> {<<"text/markdown">>, fun markdown/1};
            {error, _} -> {Html, fun(Text) -> Text end}
        end,
    Finished = [
        {Id, Where, [iolist_to_binary(Signature)], text(Text, Convert), Data}
     || {Id, Where, Signature, Text, Data} <- Entries
    ],
    Docs = {docs_v1, Anno, Language, Format, text(Module, Convert), Metadata, Finished},
    file:write_file(File, term_to_binary(Docs)).

text(#{<<"en">> := Html}, Convert) -> #{<<"en">> => Convert(tidy(Html))};
text(HiddenOrNone, _) -> HiddenOrNone.

markdown(Html) ->
    unicode:characters_to_binary(edoc_html_to_markdown:convert_html(tokamak, tokamak, Html)).

%% Where a link leads within generated pages says nothing in a shell.
tidy(Html) when is_list(Html) -> lists:flatmap(fun tidy/1, Html);
tidy({a, _, Html}) -> tidy(Html);
tidy({pre, Attributes, Html}) -> [{pre, Attributes, [{code, [], Html}]}];
tidy({Tag, Attributes, Html}) -> [{Tag, Attributes, tidy(Html)}];
tidy(Text) -> [Text].
