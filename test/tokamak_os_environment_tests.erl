%% SPDX-License-Identifier: Apache-2.0
%% Children get the environment of the VM byte by byte, as those of ports do, whatever is in it. In VMs of their own,
%% which start with such an environment.
-module(tokamak_os_environment_tests).

-include_lib("eunit/include/eunit.hrl").

-define(VALUES, [
    {"TOKAMAK_BYTE", <<255>>},
    {"TOKAMAK_CHARACTER", <<"ÿ"/utf8>>},
    {"TOKAMAK_BOTH", <<"ÿ"/utf8, 255>>},
    {"TOKAMAK_WIDE", <<"€"/utf8>>},
    {"TOKAMAK_WIDE_AND_BYTE", <<"€"/utf8, 255>>},
    %% Characters that are UTF-8 again when they are taken for bytes.
    {"TOKAMAK_TWICE", <<"Ã¿"/utf8>>},
    {"TOKAMAK_SURROGATE", <<237, 160, 128>>},
    {"TOKAMAK_OVERLONG", <<192, 128>>},
    {"TOKAMAK_TOO_LARGE", <<244, 144, 128, 128>>},
    {"TOKAMAK_NO_CHARACTER", <<239, 191, 191>>},
    {"TOKAMAK_CUT", <<"a", 195>>},
    {"TOKAMAK_CONTROL", <<1, 10, 127>>},
    {"TOKAMAK_EQUALS", <<"=", 255, "=">>},
    {"TOKAMAK_EMPTY", <<>>},
    {"TOKAMAK_LONG", binary:copy(<<255>>, 5000)},
    {"TOKAMAK_1022", binary:copy(<<255>>, 1022)},
    {"TOKAMAK_1023", binary:copy(<<255>>, 1023)},
    {"TOKAMAK_1024", binary:copy(<<255>>, 1024)},
    {<<"TOKAMAK_N", 255>>, <<"byte">>},
    {<<"TOKAMAK_Nÿ"/utf8>>, <<"character">>},
    {<<"TOKAMAK_Ã¿"/utf8>>, <<"twice">>},
    {<<"TOKAMAK_€"/utf8>>, <<"wide">>},
    {<<"TOKAMAK_â\x{82}¬"/utf8>>, <<"wide, twice">>},
    {<<255>>, <<255>>}
]).

environment_test_() ->
    tokamak_test:cases([
        {Title ++ " (file names in " ++ Encoding ++ ")", fun() -> in_peer(Flag, Test) end}
     || {Encoding, Flag} <- [{"UTF-8", "+fnu"}, {"Latin-1", "+fnl"}],
        {Title, Test} <- [
            {"what the VM began with arrives byte by byte", fun from_the_start/0},
            {"what os:putenv/2 sets arrives as it sets it", fun later/0},
            {"bytes are replaced by characters that look the same", fun same_text/0},
            {"changes of a start are made to bytes", fun changes/0}
        ]
    ]).

from_the_start() ->
    Environment = compare(),
    [?assert(lists:member(iolist_to_binary([Name, "=", Value]), Environment)) || {Name, Value} <- ?VALUES],
    %% It is kept now.
    ?assertEqual(Environment, compare()).

later() ->
    _ = compare(),
    [
        begin
            true = os:putenv(Name, Value),
            compare()
        end
     || {Name, Value} <- [
            {"TOKAMAK_LATE", [255]},
            {"TOKAMAK_LATE", [195, 191]},
            {[$N, 255], "1"},
            {[$N, 195, 191], "2"},
            {"TOKAMAK_BYTE", "a"},
            {"TOKAMAK_LONG", lists:duplicate(60000, 255)},
            {"", "no name"},
            {"", [255]},
            {"", ""}
        ] ++ [{"TOKAMAK_LATE", [8364]} || file:native_name_encoding() =:= utf8]
    ],
    [
        begin
            true = os:unsetenv(Name),
            compare()
        end
     || Name <- ["", "TOKAMAK_BYTE", [$N, 255], "TOKAMAK_LATE"]
    ].

same_text() ->
    _ = compare(),
    Before = os:env(),
    true = os:putenv("TOKAMAK_BYTE", [255]),
    ?assertEqual(lists:sort(Before), lists:sort(os:env())),
    Characters = unicode:characters_to_binary([255], unicode, file:native_name_encoding()),
    ?assert(lists:member(<<"TOKAMAK_BYTE=", Characters/binary>>, compare())).

changes() ->
    Without = [V || V <- compare(), binary:match(V, [<<"TOKAMAK_N", 255, "=">>, <<"TOKAMAK_BYTE=">>]) =:= nomatch],
    Changes = [{<<"TOKAMAK_N", 255>>, false}, {"TOKAMAK_BYTE", <<254>>}],
    ?assertEqual(lists:sort([<<"TOKAMAK_BYTE=", 254>> | Without]), of_child(#{env => Changes})).

%% The environment of a child, which is that of a port's.
compare() ->
    Environment = of_port(),
    ?assertEqual(Environment, of_child(#{})),
    Environment.

of_child(Options) ->
    {ok, #{status := 0, stdout := Output}} = tokamak_subprocess:run(["/usr/bin/env", "-0"], Options),
    variables(Output).

of_port() ->
    Port = open_port({spawn_executable, "/usr/bin/env"}, [{args, ["-0"]}, binary, exit_status]),
    variables(output(Port, <<>>)).

output(Port, Output) ->
    receive
        {Port, {data, More}} -> output(Port, <<Output/binary, More/binary>>);
        {Port, {exit_status, Status}} ->
            ?assertEqual(0, Status),
            Output
    end.

variables(Output) ->
    lists:sort([Variable || Variable <- binary:split(Output, <<0>>, [global]), Variable =/= <<>>]).

%% The script `erl' would lose names that a shell cannot have.
in_peer(Flag, Test) ->
    Variables = [[" ", quoted(iolist_to_binary([Name, "=", Value]))] || {Name, Value} <- ?VALUES],
    Command = lists:flatten(["exec env", Variables, " \"$BINDIR/erlexec\" ", Flag, " \"$@\""]),
    Peer = tokamak_test:start_peer(#{exec => {"/bin/sh", ["-c", Command, "sh"]}}),
    {ok, _} = peer:call(Peer, application, ensure_all_started, [tokamak]),
    _ = peer:call(Peer, erlang, apply, [Test, []], 30_000),
    ok = peer:stop(Peer).

quoted(Bytes) ->
    ["\"$(printf '", [io_lib:format("\\~3.8.0b", [Byte]) || <<Byte>> <= Bytes], "')\""].
