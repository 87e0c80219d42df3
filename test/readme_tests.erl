%% SPDX-License-Identifier: Apache-2.0
%% The examples of README.md and docs/ are run as they stand there, each block by itself.
-module(readme_tests).

-include_lib("eunit/include/eunit.hrl").

-define(TIMEOUT, 60).

every_example_runs_test_() ->
    {setup, fun set_up/0, fun clean_up/1, [
        {lists:flatten(io_lib:format("~s, line ~b: ~s", [Page, Line, Language])),
            {timeout, ?TIMEOUT, fun() -> run(Language, Code) end}}
     || Page <- pages(),
        {Line, Language, Code} <- blocks(Page),
        lists:member(Language, ["erlang", "elixir"])
    ]}.

the_readme_has_an_example_in_each_language_test() ->
    Languages = [Language || {_Line, Language, _Code} <- blocks("README.md")],
    ?assertEqual([], ["erlang", "elixir"] -- Languages).

the_readme_names_every_page_test() ->
    Linked = [Target || {_Line, Target} <- links("README.md")],
    ?assertEqual([], ["docs/" ++ filename:basename(Page) || Page <- filelib:wildcard(path("docs/*.md"))] -- Linked).

every_link_leads_somewhere_test() ->
    ?assertEqual([], [
        {Page, Line, Target}
     || Page <- pages(), {Line, Target} <- links(Page), not is_there(Page, string:split(Target, "#"))
    ]).

the_table_of_event_types_is_that_of_the_code_and_of_the_c_header_test() ->
    Documented = event_types("docs/messages.md", "^\\| `([a-z_]+)` \\| ([0-9]+) \\|"),
    InHeader = event_types("include/tokamak.h", "^    TOKAMAK_([A-Z_]+) = ([0-9]+),?$", "tokamak_event_type"),
    ?assertEqual(InHeader, Documented),
    ?assertEqual(tokamak_loop:event_types(), [binary_to_atom(Name) || {Name, _Code} <- Documented]).

the_keys_of_the_configuration_and_their_defaults_are_those_of_the_code_test() ->
    Documented = maps:from_list([
        {binary_to_atom(Key), value(Default)}
     || Line <- lines("docs/configuration.md"),
        {match, [Key, Default]} <- [
            re:run(Line, "^\\| `([a-z_]+)` \\| `?([^|`]+)`? \\|", [{capture, all_but_first, binary}])
        ]
    ]),
    ?assertEqual(tokamak_config:defaults(), Documented).

value(Expression) ->
    [{'Value', Value}] = tokamak_examples:run("Value = " ++ binary_to_list(Expression) ++ "."),
    Value.

%% Applications that stop, or do not start, are no news here.
set_up() ->
    #{level := Level} = logger:get_primary_config(),
    ok = logger:set_primary_config(level, none),
    Level.

clean_up(Level) ->
    tokamak_examples:application_is_stopped(),
    ok = logger:set_primary_config(level, Level).

pages() ->
    ["README.md" | ["docs/" ++ filename:basename(Page) || Page <- filelib:wildcard(path("docs/*.md"))]].

%%% Links of a page, but those to other sites

links(Page) ->
    [
        {Line, Target}
     || {Line, Text} <- lists:enumerate(lines(Page)),
        {match, Matches} <- [re:run(Text, "\\]\\(([^()]+)\\)", [global, {capture, all_but_first, list}])],
        [Target] <- Matches,
        string:find(Target, "://") =:= nomatch
    ].

is_there(Page, [File]) -> filelib:is_file(path(filename:join(filename:dirname(Page), File)));
is_there(Page, ["", Anchor]) -> lists:member(Anchor, anchors(Page));
is_there(Page, [File, Anchor]) -> is_there(filename:join(filename:dirname(Page), File), ["", Anchor]).

%% As GitHub makes them of headings.
anchors(Page) ->
    [
        lists:append([anchor(Character) || Character <- string:lowercase(unicode:characters_to_list(Heading))])
     || Line <- lines(Page),
        {match, [Heading]} <- [re:run(Line, "^#+ (.*)$", [{capture, all_but_first, binary}])]
    ].

anchor($\s) -> "-";
anchor(C) when C =:= $-; C =:= $_; C >= $a, C =< $z; C >= $0, C =< $9 -> [C];
anchor(_) -> "".

%%% Blocks of a page

blocks(Page) ->
    outside(1, lines(Page)).

outside(_N, []) -> [];
outside(N, [<<"```", Language/binary>> | Lines]) -> inside(N + 1, N, Language, Lines, []);
outside(N, [_ | Lines]) -> outside(N + 1, Lines).

inside(N, Start, Language, [<<"```">> | Lines], Code) ->
    [{Start, binary_to_list(Language), lists:join($\n, lists:reverse(Code))} | outside(N + 1, Lines)];
inside(N, Start, Language, [Line | Lines], Code) ->
    inside(N + 1, Start, Language, Lines, [Line | Code]).

lines(File) ->
    {ok, Content} = file:read_file(path(File)),
    binary:split(Content, <<"\n">>, [global]).

%% The application is found in _build/PROFILE/lib/tokamak.
path(File) ->
    filename:join([code:lib_dir(tokamak), "..", "..", "..", "..", File]).

%%% Running them

run("erlang", Code) ->
    tokamak_examples:application_is_stopped(),
    tokamak_examples:run(unicode:characters_to_list(Code));
run("elixir", Code) ->
    ?assertNotEqual(false, os:find_executable("elixir"), "elixir is missing: make test installs it"),
    File = filename:join("/tmp", "tokamak_" ++ os:getpid() ++ ".exs"),
    ok = file:write_file(File, Code),
    try
        ?assertEqual({0, <<>>}, elixir(File))
    after
        file:delete(File)
    end.

elixir(File) ->
    Port = open_port({spawn_executable, os:find_executable("elixir")}, [
        {args, [File]},
        {env, [{"ERL_LIBS", filename:dirname(code:lib_dir(tokamak))}, {"ELIXIR_ERL_OPTIONS", "+fnu"}]},
        exit_status, stderr_to_stdout, binary
    ]),
    output(Port, <<>>).

output(Port, Output) ->
    receive
        {Port, {data, Data}} -> output(Port, <<Output/binary, Data/binary>>);
        {Port, {exit_status, Status}} -> {Status, Output}
    end.

%%% Event types

event_types(File, Pattern) ->
    matches(lines(File), Pattern).

%% Those of one enum.
event_types(File, Pattern, Enum) ->
    [_, FromEnum] = string:split(lists:join($\n, lines(File)), "enum " ++ Enum ++ " {"),
    [Body, _] = string:split(FromEnum, "};"),
    matches(string:split(Body, "\n", all), Pattern).

matches(Lines, Pattern) ->
    [{string:lowercase(Name), Code}
     || Line <- Lines,
        {match, [Name, Code]} <- [re:run(Line, Pattern, [{capture, all_but_first, binary}])]].
